"""Locks on open files, which end with the process that holds them."""

import contextlib
from typing import IO

try:
    import fcntl
except ImportError:  # a system without them
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None


def lock(file: IO[bytes] | int) -> None:
    """Lock an open file or folder, after whoever holds it; nothing where there are no locks."""
    if HAS_LOCKS:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)


def lock_at_once(file: IO[bytes] | int) -> None:
    """Lock an open file or folder that nobody else has locked."""
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
