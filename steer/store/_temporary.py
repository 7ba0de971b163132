"""Temporary names for incomplete files, and removal of those that killed processes left.

A writer holds a lock, which ends with its process; a temporary file that can be locked is thus a
leftover.
"""

import contextlib
import os
import re
import secrets
import shutil
from pathlib import Path

try:
    import fcntl
except ImportError:  # a system without locks
    fcntl = None  # type: ignore[assignment]

_HAS_LOCKS = fcntl is not None
_NAME = re.compile(r"\.steer-[0-9a-f]{16}\.tmp")
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_OPEN = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def new_file(folder: Path) -> tuple[Path, int]:
    """Return a new empty file inside a folder, and its locked descriptor."""
    clear(folder)
    while True:
        path = folder / _name()
        descriptor = os.open(path, _NEW, 0o666)
        if _claimed(path, descriptor):
            return path, descriptor
        os.close(descriptor)


def new_folder(folder: Path) -> tuple[Path, int | None]:
    """Return a new empty folder inside a folder, and the descriptor of its lock if there is one."""
    clear(folder)
    while True:
        path = folder / _name()
        path.mkdir()
        if not _HAS_LOCKS:
            return path, None
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY)
            if _claimed(path, descriptor):
                return path, descriptor
            os.close(descriptor)


def _name() -> str:
    return f".steer-{secrets.token_hex(8)}.tmp"


def _claimed(path: Path, descriptor: int) -> bool:
    """Lock a new file; return False if another process removed it before that."""
    if _HAS_LOCKS:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def clear(folder: Path) -> None:
    """Remove the leftovers of killed writers from a folder, as far as possible."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        left = [Path(entry.path) for entry in entries if _NAME.fullmatch(entry.name)]
        for path in left:
            with contextlib.suppress(OSError):
                _remove(path)


def _remove(path: Path) -> None:
    if not _HAS_LOCKS:  # such systems do not remove what is open
        path.unlink()
        return
    descriptor = os.open(path, _OPEN)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if somebody writes it
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        os.close(descriptor)
