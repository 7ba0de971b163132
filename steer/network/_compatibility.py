"""Whether two models differ by their weights alone, so that a difference has a meaning."""

import warnings
from collections.abc import Mapping
from typing import Any

from steer.errors import SteerError
from steer.network._parameters.layout import listed

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


def config_differences(base: Mapping[str, Any], aligned: Mapping[str, Any]) -> list[str]:
    """Return the entries that differ and that change what weights compute, one line each."""
    if not base or not aligned:
        return []
    names = sorted(name for name in {**base, **aligned} if not _harmless(name))
    return [
        f"{name}: {base.get(name)} and {aligned.get(name)}"
        for name in names
        if base.get(name) != aligned.get(name)
    ]


def text_differences(base: tuple[str, str], aligned: tuple[str, str]) -> list[str]:
    """Return what differs of tokenizer and chat template, where both sides have one."""
    names = ("the tokenizer", "the chat template")
    return [
        f"{name} differs"
        for name, left, right in zip(names, base, aligned, strict=True)
        if left and right and left != right
    ]


def refuse_or_warn(
    base: str, aligned: str, lines: list[str], error: type[SteerError], *, strict: bool
) -> None:
    """Raise, or warn of, differences that may be wanted."""
    if not lines:
        return
    refusal = error(
        f"{base} and {aligned} differ in more than their weights",
        found=listed(lines),
        expected="the same configuration, tokenizer and chat template",
        do="use both with one tokenizer and template; strict=False if you know that it is harmless",
    )
    if strict:
        raise refusal
    warnings.warn(str(refusal), stacklevel=4)


def _harmless(name: str) -> bool:
    bare = name.removeprefix("_")
    return bare in _HARMLESS or any(part in bare for part in _HARMLESS_PARTS)
