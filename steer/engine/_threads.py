"""Which thread is at work; compiled code cannot tell."""

import threading

import torch


def this_thread() -> int | None:
    """Return the identity of the thread at work; None in compiled code, which cannot tell."""
    return None if torch.compiler.is_compiling() else threading.get_ident()


def elsewhere(thread: int | None) -> bool:
    """Return whether this is another thread; where it cannot be told, it is not."""
    return thread is not None and this_thread() not in (None, thread)
