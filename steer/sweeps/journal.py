"""The file that a sweep is saved to as it goes: JSON lines, one for every finished setting.

The first line says which request the file belongs to. Every line has a check sum, so that a
damaged line is seen. A last line without its end is what an interrupted write leaves behind; it
is cut off, and its setting is measured again. Domains and numbers stand in lists, which keep their
order; a number that is not finite is null. The file is locked while a sweep runs.
"""

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from steer.errors import SelectionError, VectorFileError
from steer.store.strict_json import dumps, loads
from steer.sweeps.lock import lock

FORMAT, VERSION = "steer-sweep", 2
Measured = Mapping[str, Mapping[str, float]]


class Journal:
    """A sweep's file, locked for this process until it is closed.

    Args:
        path: The file; it is made if it does not exist.
        fingerprint: Of the whole request.
        count: Number of its settings.
        notes: What else the first line holds, for people and for resuming.

    Raises:
        SelectionError: The file cannot be opened, is damaged, belongs to another request, or
            another process writes it.
    """

    def __init__(
        self, path: str | Path, fingerprint: str, count: int, notes: Mapping[str, Any]
    ) -> None:
        self.path = Path(path)
        self.measured: dict[int, Measured] = {}
        self.notes = dict(notes)
        self._fingerprint, self._count = fingerprint, count
        head = {"format": FORMAT, "version": VERSION, "fingerprint": fingerprint}
        first = _line({**head, "settings": count, "notes": self.notes})
        self._file = self._opened()
        try:
            lock(self._file, self.path)
            if not self._read(first):
                self._file.truncate(0)
                self._write([first])
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, measured: Mapping[int, Measured]) -> None:
        """Save finished settings, all in one write.

        Args:
            measured: Index of each setting, and what was measured there on each domain.
        """
        lines = [_line({"setting": k, "measured": _listed(m)}) for k, m in measured.items()]
        self._write(lines)
        self.measured |= measured

    def _opened(self) -> BinaryIO:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return self.path.open("a+b")
        except OSError as error:
            raise SelectionError(
                f"a sweep cannot be saved to {self.path}",
                found=f"{type(error).__name__}: {error.strerror}",
                expected="a file that may be read and written, or none yet",
                do="save to another file",
            ) from error

    def _write(self, lines: Sequence[bytes]) -> None:
        self._file.write(b"".join(lines))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self, first: bytes) -> bool:
        """Read what the file holds, and cut off an unfinished last line."""
        self._file.seek(0)
        content = self._file.read()
        whole, _, rest = content.rpartition(b"\n")
        if not whole:
            if not first.startswith(content):  # not the beginning of ours
                raise self._damaged("no first line of this sweep", 1)
            return False
        lines = whole.split(b"\n")
        self._head(self._value(lines[0], 1))
        for number, line in enumerate(lines[1:], start=2):
            self._take(self._value(line, number), number)
        if rest:
            self._file.truncate(len(whole) + 1)
        return True

    def _head(self, head: dict[str, Any]) -> None:
        if head.get("format") != FORMAT or head.get("version") != VERSION:
            raise SelectionError(
                f"{self.path} is not the file of a sweep that this version can resume",
                found=f"format {head.get('format')!r}, version {head.get('version')!r}",
                expected=f"format {FORMAT!r}, version {VERSION}",
                do="save to another file",
            )
        if head.get("fingerprint") != self._fingerprint or head.get("settings") != self._count:
            raise SelectionError(
                f"{self.path} belongs to another sweep",
                found=f"fingerprint {head.get('fingerprint')}",
                expected=f"{self._fingerprint}: this model, composition, data, grid and measure",
                do="save to another file, or repeat the request that the file was begun with",
            )
        if not isinstance(head.get("notes"), dict):
            raise self._damaged("no notes", 1)
        self.notes = head["notes"]

    def _take(self, value: dict[str, Any], number: int) -> None:
        setting: Any = value.get("setting")
        measured: Any = value.get("measured")
        known = isinstance(setting, int) and not isinstance(setting, bool)
        if not known or not 0 <= setting < self._count:
            raise self._damaged(f"setting {setting!r} of {self._count}", number)
        if setting in self.measured:
            raise self._damaged(f"setting {setting} a second time", number)
        if not _named(measured) or not all(map(_numbers, dict(measured).values())):
            raise self._damaged("no numbers by domain", number)
        self.measured[setting] = {
            on: {name: math.nan if x is None else x for name, x in numbers}
            for on, numbers in measured
        }

    def _value(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            value = loads(line.decode())
        except (UnicodeDecodeError, VectorFileError) as error:
            raise self._damaged("no JSON", number) from error
        if not isinstance(value, dict) or _check(value) != value.get("check"):
            raise self._damaged("a check sum that does not fit", number)
        return value

    def _damaged(self, found: str, number: int) -> SelectionError:
        return SelectionError(
            f"{self.path} is damaged",
            found=f"{found}, in line {number}",
            expected="the lines that a sweep wrote, unchanged",
            do="move the file away; the sweep then starts anew",
        )


def _listed(measured: Measured) -> list[Any]:
    """Return domains and numbers as lists, which keep their order."""
    return [
        [on, [[name, x if math.isfinite(x) else None] for name, x in numbers.items()]]
        for on, numbers in measured.items()
    ]


def _named(value: Any) -> bool:
    """Return whether a value is a list of lists of a name and something, each name once."""
    known = isinstance(value, list) and all(
        isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) for entry in value
    )
    return known and len({entry[0] for entry in value}) == len(value)


def _numbers(value: Any) -> bool:
    return _named(value) and all(
        x is None or (isinstance(x, int | float) and not isinstance(x, bool)) for _, x in value
    )


def _line(value: Mapping[str, Any]) -> bytes:
    return f"{dumps({'check': _check(value), **value})}\n".encode()


def _check(value: Mapping[str, Any]) -> str:
    rest = {k: v for k, v in value.items() if k != "check"}
    return hashlib.sha256(dumps(rest).encode()).hexdigest()[:16]
