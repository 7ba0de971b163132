"""Writing a file or a folder so that it appears under its name when it is complete."""

import contextlib
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from steer.store._paths import ErrorKind, accessing, folder_made, target_of
from steer.store._temporary import new_file, new_folder


class AtomicFile:
    """A file that gets its name with `commit`; left without one, nothing has changed.

    It is written beside its place under another name, so that a process that is killed, or a disk
    that is full, leaves the old file as it was. Permissions of a file that is replaced are kept.

    Args:
        path: What a user gave.
        error: The class to raise.
        parents: Whether missing folders are made.

    Raises:
        SteerError: No file can have this name, or what is there cannot be replaced.
    """

    def __init__(self, path: object, error: ErrorKind, *, parents: bool = False) -> None:
        self._target = target_of(path, error)
        self._path, self._error, self._parents = path, error, parents

    def __enter__(self) -> Self:
        with accessing(self._path, self._error):
            if self._parents:
                folder_made(self._target.parent, self._error)
            self._temporary, descriptor = new_file(self._target.parent)
            self.file: IO[bytes] = os.fdopen(descriptor, "wb")  # closed by __exit__
        return self

    def write(self, data: "bytes | memoryview") -> None:
        """Write some bytes.

        Args:
            data: The bytes.

        Raises:
            SteerError: The operating system refused it, for instance as the disk is full.
        """
        with accessing(self._path, self._error):
            self.file.write(data)

    def commit(self) -> None:
        """Give the file its name.

        Raises:
            SteerError: The operating system refused it, for instance as the disk is full.
        """
        with accessing(self._path, self._error):
            self.file.flush()
            os.fsync(self.file.fileno())
            if self._target.exists():
                shutil.copymode(self._target, self._temporary)
            os.replace(self._temporary, self._target)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):  # what mattered was written by commit
            self.file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()


class AtomicFolder:
    """A new folder that gets its name with `commit`; left without one, nothing has changed.

    Args:
        target: The folder, whose parent exists; it does not exist, or is empty.
        error: The class to raise.
    """

    def __init__(self, target: Path, error: ErrorKind) -> None:
        self._target, self._error = target, error

    def __enter__(self) -> Self:
        with accessing(self._target, self._error):
            self.path, self._descriptor = new_folder(self._target.parent)
        return self

    def commit(self) -> None:
        """Give the folder its name.

        Raises:
            SteerError: The operating system refused it.
        """
        with accessing(self._target, self._error):
            os.replace(self.path, self._target)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._descriptor is not None:
            os.close(self._descriptor)


def write_bytes(path: object, data: bytes, error: ErrorKind, *, parents: bool = False) -> None:
    """Write a file whole or not at all.

    Args:
        path: What a user gave; a file of that name is replaced.
        data: What it holds.
        error: The class to raise.
        parents: Whether missing folders are made.

    Raises:
        SteerError: The file cannot be written.
    """
    with AtomicFile(path, error, parents=parents) as out:
        out.write(data)
        out.commit()


def write_text(path: object, text: str, error: ErrorKind, *, parents: bool = False) -> None:
    r"""Write a text file whole or not at all, in UTF-8; half surrogate pairs become `\ud800`.

    Args:
        path: What a user gave; a file of that name is replaced.
        text: What it holds.
        error: The class to raise.
        parents: Whether missing folders are made.

    Raises:
        SteerError: The file cannot be written.
    """
    data = text.encode("utf-8", "backslashreplace")
    write_bytes(path, data, error, parents=parents)
