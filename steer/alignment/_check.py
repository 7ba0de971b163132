"""Checks that two models have the same architecture, configuration, tokenizer and template."""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from steer.alignment._source import Source
from steer.errors import AlignmentError
from steer.network._compatibility import config_differences, refuse_or_warn, text_differences
from steer.network._parameters.layout import listed


def included(source: Source, include: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the parameters that match any of some shell patterns; None is all."""
    names = tuple(source.parameters.shapes)
    if include is None:
        return names
    if isinstance(include, str):
        raise _no_match(include, "a list of patterns", "write include=[…]")
    for pattern in include:
        if not fnmatch.filter(names, pattern):
            raise _no_match(pattern, f"patterns of names such as {names[0]}", "use * for any text")
    return tuple(name for name in names if _matches(name, include))


def check_comparable(
    base: Source, aligned: Source, include: Sequence[str] | None, *, strict: bool
) -> None:
    """Refuse two models whose difference has no meaning; unless `strict`, warn of text and config.

    Parameters that `include` leaves out are not compared.
    """
    _check_shapes(base, aligned, include)
    lines = config_differences(_text_config(base), _text_config(aligned))
    lines += text_differences(base.marks, aligned.marks)
    refuse_or_warn(base.label, aligned.label, lines, AlignmentError, strict=strict)
    _check_buffers(base, aligned)


def _check_shapes(base: Source, aligned: Source, include: Sequence[str] | None) -> None:
    left, right = base.parameters.shapes, aligned.parameters.shapes
    lines = []
    for name in dict.fromkeys((*left, *right)):
        if _matches(name, include) and left.get(name) != right.get(name):
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


def _check_buffers(base: Source, aligned: Source) -> None:
    """Refuse trained buffers that differ; integer and unsaved buffers are not compared."""
    differing = [
        name
        for name in base.parameters.buffers
        if name in aligned.parameters.buffers
        and not torch.equal(base.parameters.read(name), aligned.parameters.read(name))
    ]
    if differing:
        raise AlignmentError(
            "buffers of the two models differ",
            found=listed(differing),
            expected="a difference in parameters only",
            do="use the aligned model as it is: a buffer is not a site of a vector",
        )


def _matches(name: str, include: Sequence[str] | None) -> bool:
    return include is None or any(fnmatch.fnmatchcase(name, pattern) for pattern in include)


def _text_config(source: Source) -> Mapping[str, Any]:
    return {} if source.config is None else source.config.get_text_config().to_dict()


def _no_match(found: object, expected: str, do: str) -> AlignmentError:
    return AlignmentError("include names no parameter", found=repr(found), expected=expected, do=do)
