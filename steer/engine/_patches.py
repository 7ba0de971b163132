"""Functions of ours on the user's modules, put there and taken away without a trace."""

import functools
from collections.abc import Callable
from typing import Any, cast

from torch import nn

from steer.errors import SteeringError


class Uncopied:
    """A function put on the user's model; a copy of the model must not take it along."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self._function(*args, **kwargs)

    def __reduce_ex__(self, protocol: object) -> Any:
        raise SteeringError(
            "a model cannot be copied or pickled while it is steered",
            found="a copy that would call back into this model",
            expected="a copy made outside of `with lm.steered(...)`",
            do="leave the context, or remove the handle, and copy the model then",
        )


def replace(
    module: nn.Module, name: str, value: Uncopied, undo: Callable[[Callable[[], None]], object]
) -> None:
    """Set an instance attribute, after handing over what puts back exactly what was there."""
    had, old = name in module.__dict__, module.__dict__.get(name)

    def restore() -> None:
        if had:
            module.__dict__[name] = old
        else:
            module.__dict__.pop(name, None)

    undo(restore)
    module.__dict__[name] = value


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the causal model inside an adapter's wrapper: both ways in lead through it."""
    inner = getattr(model, "get_base_model", None)
    return cast(nn.Module, inner()) if callable(inner) else model
