"""Whether the difference of two models can be taken, and of which parameters."""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from steer.alignment._source import Source
from steer.errors import AlignmentError
from steer.network._compatibility import config_differences, refuse_or_warn, text_differences
from steer.network._parameters.layout import listed


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
    lines = config_differences(_text_config(base), _text_config(aligned))
    lines += text_differences(base.marks, aligned.marks)
    refuse_or_warn(base.label, aligned.label, lines, AlignmentError, strict=strict)


def _text_config(source: Source) -> Mapping[str, Any]:
    return {} if source.config is None else source.config.get_text_config().to_dict()


def _no_match(found: object, expected: str, do: str) -> AlignmentError:
    return AlignmentError("include names no parameter", found=repr(found), expected=expected, do=do)
