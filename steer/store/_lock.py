"""Advisory locks on open files, which end with the process that holds them."""

import contextlib
from typing import IO

try:
    import fcntl
except ImportError:  # a system without them
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None


def lock(file: IO[bytes] | int) -> None:
    """Wait for the lock of an open file or folder; do nothing on systems without locks."""
    if HAS_LOCKS:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)


def lock_at_once(file: IO[bytes] | int) -> None:
    """Lock an open file or folder at once, or raise `OSError` if somebody else holds the lock."""
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
