"""Whether two models differ by their weights alone, so that a difference has a meaning."""

import fnmatch
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from steer.alignment.source import Source
from steer.errors import AlignmentError
from steer.parameters.layout import listed

_HARMLESS = (
    "architectures",
    "auto_map",
    "dtype",
    "id2label",
    "label2id",
    "max_position_embeddings",
    "name_or_path",
    "problem_type",
    "torch_dtype",
    "transformers_version",
    "use_cache",
)
_HARMLESS_PARTS = ("dropout", "pdrop", "token_id", "initializer", "attn_implementation", "output_")


def included(source: Source, include: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the parameters that are asked for.

    Args:
        source: The base model.
        include: Shell patterns of names; None for all.

    Raises:
        AlignmentError: A pattern meets no parameter.
    """
    names = tuple(source.parameters.shapes)
    if include is None:
        return names
    if isinstance(include, str):
        raise _no_match(include, "a list of patterns", "write include=[…]")
    for pattern in include:
        if not fnmatch.filter(names, pattern):
            raise _no_match(pattern, f"patterns of names such as {names[0]}", "use * for any text")
    return tuple(n for n in names if any(fnmatch.fnmatchcase(n, p) for p in include))


def check_same_shape(base: Source, aligned: Source, include: Sequence[str] | None) -> None:
    """Refuse models whose parameters differ in name or shape; every one is named.

    Args:
        base: One model.
        aligned: The other.
        include: As in `included`: other parameters are not compared.

    Raises:
        AlignmentError: A parameter is missing on one side or has another shape.
    """
    left, right = base.parameters.shapes, aligned.parameters.shapes
    lines = []
    for name in dict.fromkeys((*left, *right)):
        if include is not None and not any(fnmatch.fnmatchcase(name, p) for p in include):
            continue
        if left.get(name) != right.get(name):
            shapes = [str(side.get(name, "missing")) for side in (left, right)]
            lines.append(f"{name}: {shapes[0]} and {shapes[1]}")
    if lines:
        raise AlignmentError(
            f"{base.label} and {aligned.label} are not of one architecture",
            found=listed(lines),
            expected="the same parameters of the same shapes",
            do="take two checkpoints of one model; where only the vocabulary grew, leave its "
            "parameters out with include=['model.layers.*']",
        )


def check_buffers(base: Source, aligned: Source) -> None:
    """Refuse buffers that training has moved: a vector of parameters cannot hold them.

    Integer buffers and those that are not saved (positions, masks) are computed from the
    configuration and not compared.

    Args:
        base: One model.
        aligned: The other.

    Raises:
        AlignmentError: A floating-point buffer differs.
    """
    shared = [n for n in base.parameters.buffers if n in aligned.parameters.buffers]
    differing = [
        name
        for name in shared
        if not torch.equal(base.parameters.read(name), aligned.parameters.read(name))
    ]
    if differing:
        raise AlignmentError(
            "buffers of the two models differ",
            found=listed(differing),
            expected="a difference in parameters alone",
            do="use the aligned model as it is: a buffer is no site of a vector",
        )


def check_same_kind(base: Source, aligned: Source, *, strict: bool) -> None:
    """Refuse models of another configuration, tokenizer or chat template.

    Args:
        base: One model.
        aligned: The other.
        strict: Whether to refuse; if not, it is warned of.

    Raises:
        AlignmentError: If strict, something differs.
    """
    lines = _config_differences(base.config, aligned.config)
    if base.info is not None and aligned.info is not None:
        lines += differing_texts(
            (base.info.tokenizer, base.info.template),
            (aligned.info.tokenizer, aligned.info.template),
        )
    refuse_or_warn(base.label, aligned.label, lines, strict=strict)


def differing_texts(base: tuple[str, str], aligned: tuple[str, str]) -> list[str]:
    """Return what differs of tokenizer and chat template, where both sides have one.

    Args:
        base: Fingerprints of tokenizer and template, empty where there is none.
        aligned: Likewise.
    """
    names = ("the tokenizer", "the chat template")
    return [
        f"{name} differs"
        for name, left, right in zip(names, base, aligned, strict=True)
        if left and right and left != right
    ]


def refuse_or_warn(base: str, aligned: str, lines: list[str], *, strict: bool) -> None:
    """Raise, or warn of, differences that may be wanted.

    Args:
        base: Label of one model.
        aligned: Label of the other.
        lines: What differs.
        strict: Whether to raise.

    Raises:
        AlignmentError: If strict, something differs.
    """
    if not lines:
        return
    error = AlignmentError(
        f"{base} and {aligned} differ in more than their weights",
        found=listed(lines),
        expected="the same configuration, tokenizer and chat template",
        do="use both with one tokenizer and template; strict=False if you know that it is harmless",
    )
    if strict:
        raise error
    warnings.warn(str(error), stacklevel=4)


def _config_differences(base: Any, aligned: Any) -> list[str]:
    if base is None or aligned is None:
        return []
    left, right = (config.get_text_config().to_dict() for config in (base, aligned))
    names = sorted(name for name in {**left, **right} if not _harmless(name))
    return [
        f"{name}: {left.get(name)} and {right.get(name)}"
        for name in names
        if left.get(name) != right.get(name)
    ]


def _harmless(name: str) -> bool:
    bare = name.removeprefix("_")
    return bare in _HARMLESS or any(part in bare for part in _HARMLESS_PARTS)


def _no_match(found: object, expected: str, do: str) -> AlignmentError:
    return AlignmentError("include names no parameter", found=repr(found), expected=expected, do=do)
