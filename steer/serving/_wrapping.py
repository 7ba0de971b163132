"""Functions of vLLM, each replaced at most once by one that calls it."""

from collections.abc import Callable
from functools import wraps
from typing import Any

_MARK = "_wrapped_by_steer"


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace a function of a class: `around(original, self, …)` is called instead."""
    original = getattr(owner, name)
    if hasattr(original, _MARK):
        return

    @wraps(original)
    def replacement(self: Any, *args: Any, **kwargs: Any) -> Any:
        return around(original, self, *args, **kwargs)

    setattr(replacement, _MARK, True)
    setattr(owner, name, replacement)
