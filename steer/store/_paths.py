"""Paths that users give, checked before they are used."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from steer.errors import SteerError

PathLike = str | os.PathLike[str]
ErrorKind = type[SteerError]


def path_of(value: object, error: ErrorKind) -> Path:
    """Return a path that the file system accepts; nothing need exist there."""
    try:
        text = os.fspath(value)  # type: ignore[call-overload]  # anything else raises
        if not isinstance(text, str):
            raise TypeError
        with accessing(text, error), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(text)
        return Path(text)
    except TypeError:
        raise error(
            "this is not a path",
            found=f"{type(value).__name__} {value!r}"[:120],
            expected="a text or a pathlib.Path",
            do="pass the name, for instance 'vector.safetensors'",
        ) from None
    except ValueError as cause:
        if isinstance(cause, SteerError):
            raise
        raise error(
            "no file can have this name",
            found=f"{value!r}: {cause}",
            expected="a name without NUL characters and half surrogate pairs",
            do="correct the name",
        ) from cause


@contextlib.contextmanager
def accessing(name: object, error: ErrorKind) -> Iterator[None]:
    """Turn an `OSError` inside into an error of this library that names the file."""
    try:
        yield
    except OSError as cause:
        if isinstance(cause, SteerError):
            raise
        missing = isinstance(cause, FileNotFoundError)
        raise error(
            f"{name}: the file cannot be accessed",
            found=cause.strerror or str(cause) or type(cause).__name__,
            expected="a file that can be read or written",
            do="check the path"
            if missing
            else "check the path, the permissions and the space left on the disk",
        ) from cause


def target_of(path: object, error: ErrorKind) -> Path:
    """Return the ordinary or missing file behind a name and its links, to be written."""
    what, expected = "this cannot be written or replaced", "an ordinary file, or none yet"
    named, found = _only("a file", path, error, what, expected, "name another file")
    if found == "a file" and not os.access(named, os.W_OK):
        raise error(
            f"{named}: {what}",
            found="a write-protected file",
            expected=expected,
            do="name another file",
        )
    return Path(os.path.realpath(named))


@contextlib.contextmanager
def readable(path: object, error: ErrorKind, *, kind: str = "a file") -> Iterator[BinaryIO]:
    """Open an ordinary file for reading; a folder, a device, a pipe or a socket is refused."""
    named, _ = _only("a file", path, error, "not a file", kind, "name the file itself")
    with accessing(named, error), open(named, "rb") as file:
        yield file


def read_file(path: object, error: ErrorKind, *, most: int) -> bytes:
    """Return the content of an ordinary file of at most `most` bytes."""
    with readable(path, error) as file:
        size = file_size(file)
        data = file.read(most + 1)
    if len(data) > most:
        raise error(
            f"{path}: the file is too long to be what it should",
            found=f"{size} bytes",
            expected=f"at most {most}",
            do="fetch or write the file again",
        )
    return data


def file_size(file: BinaryIO) -> int:
    """Return the length of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


def folder_of(path: object, error: ErrorKind) -> Path:
    """Return a folder, which may not exist yet; no other kind of file may have its name."""
    expected, do = "a folder, or none yet", "name another folder"
    return _only("a directory", path, error, "not a folder", expected, do)[0]


def folder_made(path: object, error: ErrorKind) -> Path:
    """Return a folder, created with its parents if it does not exist."""
    folder = folder_of(path, error)
    with accessing(folder, error):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _only(
    kind: str, path: object, error: ErrorKind, what: str, expected: str, do: str
) -> tuple[Path, str]:
    """Return a path with what is there, which must be of one kind, or nothing."""
    named = path_of(path, error)
    with accessing(named, error):
        found = _kind_of(named)
    if found not in ("nothing", kind):
        raise error(f"{named}: {what}", found=found, expected=expected, do=do)
    return named, found


def _kind_of(path: Path) -> str:
    """Return the kind of file at a path, after links."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "nothing"
    if stat.S_ISREG(mode):
        return "a file"
    return "a directory" if stat.S_ISDIR(mode) else "a device or pipe"
