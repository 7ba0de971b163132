"""The file that a sweep is saved to as it goes: JSON lines, one for every finished setting.

The first line says which request the file belongs to. Every line has a check sum, so that a
damaged line is seen. A last line without its end is what an interrupted write leaves behind; it
is cut off, and its setting is measured again. Domains and numbers stand in lists, which keep their
order; a number that is not finite is null. The file is locked while a sweep runs.
"""

import contextlib
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, BinaryIO, Self

from steer.errors import SelectionError, VectorFileError
from steer.files import PathLike, accessing, folder_made, target_of
from steer.measure.identity import differing
from steer.measure.lock import lock
from steer.store.strict_json import dumps, loads

FORMAT, VERSION = "steer-sweep", 2
_LONGEST = 2**25  # bytes of a line
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
        self, path: PathLike, fingerprint: str, count: int, notes: Mapping[str, Any]
    ) -> None:
        self.path = target_of(path, SelectionError)
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
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # a write that failed has been reported
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
        folder_made(self.path.parent, SelectionError)
        with accessing(self.path, SelectionError):
            return self.path.open("a+b")

    def _write(self, lines: Sequence[bytes]) -> None:
        with accessing(self.path, SelectionError):
            self._file.write(b"".join(lines))
            self._file.flush()
            os.fsync(self._file.fileno())

    def _read(self, first: bytes) -> bool:
        """Read what the file holds, and cut off an unfinished last line."""
        self._file.seek(0)
        number, end = 0, 0
        while line := self._file.readline(_LONGEST):
            number += 1
            if not line.endswith(b"\n"):
                break
            end += len(line)
            value = self._value(line[:-1], number)
            if number == 1:
                self._head(value)
            else:
                self._take(value, number)
        if len(line) == _LONGEST:
            raise self._damaged(f"no end within {_LONGEST} bytes", number)
        if end == 0:
            if not first.startswith(line):  # not the beginning of ours
                raise self._damaged("no first line of this sweep", 1)
            return False
        self._file.truncate(end)
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
                found=f"fingerprint {head.get('fingerprint')}{self._changed(head)}",
                expected=f"{self._fingerprint}: this model, composition, data, grid and measure",
                do="save to another file, or repeat the request that the file was begun with",
            )
        if not isinstance(head.get("notes"), dict):
            raise self._damaged("no notes", 1)
        self.notes = head["notes"]

    def _changed(self, head: dict[str, Any]) -> str:
        """Return which parts of a measure of the same name are others than those of the file."""
        theirs, ours = head.get("notes"), self.notes
        if not isinstance(theirs, dict) or theirs.get("measure") != ours["measure"]:
            return ""
        before, now = theirs.get("parts"), ours["parts"]
        if not isinstance(before, dict) or not (changed := differing(now, before)):
            return ""
        return f"; changed in {ours['measure']}: {', '.join(changed)}"

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
