"""Files and folders that appear under their name only when they are complete."""

import contextlib
import os
import shutil
from pathlib import Path
from typing import IO, Self

from steer.store._paths import ErrorKind, accessing, folder_made, target_of
from steer.store._temporary import new_file, new_folder


class AtomicFile:
    """A file that replaces its target on `commit`; without a commit nothing changes.

    It is written under a temporary name in the same folder, so that a killed process or a full
    disk leaves the old file intact. The permissions of the old file are kept.
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
        """Write some bytes."""
        with accessing(self._path, self._error):
            self.file.write(data)

    def commit(self) -> None:
        """Give the file its name."""
        with accessing(self._path, self._error):
            self.file.flush()
            os.fsync(self.file.fileno())
            if self._target.exists():
                shutil.copymode(self._target, self._temporary)
            os.replace(self._temporary, self._target)

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):  # commit has flushed and synced it
            self.file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()


class AtomicFolder:
    """A new folder that gets its name on `commit`; without a commit nothing changes."""

    def __init__(self, target: Path, error: ErrorKind) -> None:
        self._target, self._error = target, error

    def __enter__(self) -> Self:
        with accessing(self._target, self._error):
            self.path, self._descriptor = new_folder(self._target.parent)
        return self

    def commit(self) -> None:
        """Give the folder its name."""
        with accessing(self._target, self._error):
            os.replace(self.path, self._target)

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._descriptor is not None:
            os.close(self._descriptor)


def write_bytes(path: object, data: bytes, error: ErrorKind, *, parents: bool = False) -> None:
    """Write a file whole or not at all."""
    with AtomicFile(path, error, parents=parents) as out:
        out.write(data)
        out.commit()


def write_text(path: object, text: str, error: ErrorKind, *, parents: bool = False) -> None:
    r"""Write a text file whole or not at all, in UTF-8; half surrogate pairs become `\ud800`."""
    data = text.encode("utf-8", "backslashreplace")
    write_bytes(path, data, error, parents=parents)
