"""Helpers for hooks that run in other threads, compiled code or inference mode."""

import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_RETURNING = 0.5  # seconds in which `generate` returns after its last token


def this_thread() -> int | None:
    """Return the identity of this thread; None in compiled code, which cannot tell."""
    return None if torch.compiler.is_compiling() else threading.get_ident()


def elsewhere(thread: int | None) -> bool:
    """Return whether this is another thread than one from `this_thread`; False if unknown."""
    return thread is not None and this_thread() not in (None, thread)


@contextmanager
def outliving() -> Iterator[None]:
    """Make ordinary tensors without gradients, also where the user is in inference mode.

    A tensor made in inference mode can neither be written to nor be saved for a backward pass
    outside of it. The context works as a decorator as well.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield


def forget_compiled_code() -> None:
    """Have compiled code traced again: torch.compile does not notice hooks added later."""
    dynamo: Any = sys.modules.get("torch._dynamo")
    if dynamo is None or not dynamo.convert_frame.FRAME_COUNTER:
        return
    warnings.warn(
        "torch.compile ran before steering began: its code is dropped and traced again, since "
        "compiled code does not notice new hooks. Attach once, then change coefficients with "
        "update().",
        stacklevel=7,
    )
    dynamo.reset()


class Generating:
    """The threads in which `generate` of a steered model runs: a streamer's is not the caller's."""

    def __init__(self) -> None:
        self._threads: list[int] = []
        self._changed = threading.Condition()

    def run(self, generate: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `generate`."""
        me = threading.get_ident()
        with self._changed:
            self._threads.append(me)
        try:
            return generate(*args, **kwargs)
        finally:
            with self._changed:
                self._threads.remove(me)
                self._changed.notify_all()

    def warn(self) -> None:
        """Warn that steering ends while another thread generates, unless it is about to return."""
        me = threading.get_ident()
        with self._changed:
            over = self._changed.wait_for(lambda: not {*self._threads} - {me}, timeout=_RETURNING)
        if not over:
            warnings.warn(
                "steering ends while another thread generates: the rest of its text is not "
                "steered. Read the streamer to its end, or join the thread, inside the context.",
                stacklevel=7,
            )


def tensors_in(value: object) -> Iterator[Tensor]:
    """Yield the tensors of arguments or outputs, at any depth of sequences and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors_in(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)
