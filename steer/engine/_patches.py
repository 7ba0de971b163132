"""Functions on the user's modules, installed and removed without a trace."""

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import Tensor, nn

from steer.errors import SteeringError
from steer.network import block_output, replace_output

Undo = Callable[[Callable[[], None]], object]


class StopForward(Exception):  # noqa: N818 - no error: it ends a forward that has given all
    """Raised once the last value wanted has been read; no caller sees it."""


class Uncopied:
    """A function on the user's model, which a copy of the model must not take along."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function, updated=())
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


def replace(module: nn.Module, name: str, value: Uncopied, undo: Undo) -> None:
    """Set an instance attribute, after handing `undo` a function that restores the instance.

    Replacements are undone in reverse order; undoing one twice does no harm.
    """
    had, old = name in module.__dict__, module.__dict__.get(name)
    ref = weakref.ref(module)  # a lost handle does not keep the model

    def restore() -> None:
        module = ref()
        if module is None:
            return
        if had:
            module.__dict__[name] = old
        else:
            module.__dict__.pop(name, None)

    undo(restore)
    module.__dict__[name] = value


def hook_stream(
    blocks: Sequence[nn.Module],
    layer: int,
    change: Callable[[Tensor], Tensor | None],
    undo: Undo,
    *,
    first: bool = False,
) -> None:
    """Hook the residual stream at a layer: a block's output, or the first one's input at -1.

    What `change` returns replaces the stream; None leaves it. `first` puts the hook before others.
    """

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        h = change(args[0] if args else kwargs["hidden_states"])
        if h is None:
            return None
        return ((h, *args[1:]), kwargs) if args else ((), {**kwargs, "hidden_states": h})

    def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        h = change(block_output(output))
        return None if h is None else replace_output(output, h)

    if layer == -1:
        hook = Uncopied(before)
        handle = blocks[0].register_forward_pre_hook(hook, prepend=first, with_kwargs=True)
    else:
        handle = blocks[layer].register_forward_hook(Uncopied(after), prepend=first)
    undo(handle.remove)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the causal model inside an adapter's wrapper: both ways in lead through it."""
    inner = getattr(model, "get_base_model", None)
    return cast(nn.Module, inner()) if callable(inner) else model
