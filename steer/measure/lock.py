"""A lock on a file, so that two processes do not write it at the same time."""

import warnings
from pathlib import Path
from typing import BinaryIO

from steer.errors import SelectionError
from steer.files.lock import HAS_LOCKS, lock_at_once


def lock(file: BinaryIO, path: Path) -> None:
    """Lock an open file for this process until it is closed, or warn that this system has no locks.

    Args:
        file: The file.
        path: Its name, for the error.

    Raises:
        SelectionError: Another sweep holds the lock, or the file system has none.
    """
    if not HAS_LOCKS:
        warnings.warn(
            f"this system has no file locks: let no other process save a sweep to {path}",
            stacklevel=2,
        )
        return
    try:
        lock_at_once(file)
    except BlockingIOError as error:
        raise SelectionError(
            f"another sweep is being saved to {path}",
            found="the file is locked",
            expected="one sweep at a time for a file",
            do="wait until it is done and call again, or save to another file",
        ) from error
    except OSError as error:
        raise SelectionError(
            f"{path} cannot be locked",
            found=f"{type(error).__name__}: {error.strerror}",
            expected="a file system with locks",
            do="save to a local file",
        ) from error
