"""The file that a sweep is saved to as it goes: JSON lines, one for every finished setting.

The first line says which request the file belongs to. Every line ends with a check sum, so that a
damaged line is seen. A last line without its end is what an interrupted write leaves behind; it
is cut off, and its setting is measured again.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from steer.errors import SelectionError, VectorFileError
from steer.store.strict_json import dumps, loads

FORMAT, VERSION = "steer-sweep", 1
Measured = Mapping[str, Mapping[str, float]]


class Journal:
    """A sweep's file.

    Args:
        path: The file; it is made if it does not exist.
        fingerprint: Of the whole request.
        count: Number of its settings.
        notes: What else the first line holds, for people and for resuming.

    Raises:
        SelectionError: The file is damaged, or belongs to another request.
    """

    def __init__(
        self, path: str | Path, fingerprint: str, count: int, notes: Mapping[str, Any]
    ) -> None:
        self.path = Path(path)
        self.measured: dict[int, Measured] = {}
        self.notes = dict(notes)
        self._fingerprint, self._count = fingerprint, count
        head = {"format": FORMAT, "version": VERSION, "fingerprint": fingerprint}
        if self._read():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._write([_line({**head, "settings": count, "notes": self.notes})], "wb")

    def add(self, measured: Mapping[int, Measured]) -> None:
        """Save finished settings, all in one write.

        Args:
            measured: Index of each setting, and what was measured there on each domain.
        """
        lines = [_line({"setting": k, "measured": found}) for k, found in measured.items()]
        self._write(lines, "ab")
        self.measured |= measured

    def _write(self, lines: Sequence[bytes], mode: str) -> None:
        with self.path.open(mode) as file:
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> bool:
        """Read what the file holds, and cut off an unfinished last line."""
        content = self.path.read_bytes() if self.path.exists() else b""
        whole, _, rest = content.rpartition(b"\n")
        if not whole:
            self._refuse_foreign(content)
            return False
        lines = whole.split(b"\n")
        self._head(self._value(lines[0], 1))
        for number, line in enumerate(lines[1:], start=2):
            self._take(self._value(line, number), number)
        if rest:
            with self.path.open("r+b") as file:
                file.truncate(len(whole) + 1)
        return True

    def _refuse_foreign(self, content: bytes) -> None:
        """Refuse a file without a whole line that is not the beginning of one of ours."""
        start = b'{"check":"'
        if content and not content.startswith(start) and not start.startswith(content):
            raise self._damaged("no first line of a sweep", 1)

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
        setting, measured = value.get("setting"), value.get("measured")
        known = isinstance(setting, int) and not isinstance(setting, bool)
        if not known or not 0 <= cast(int, setting) < self._count:
            raise self._damaged(f"setting {setting!r} of {self._count}", number)
        if setting in self.measured:
            raise self._damaged(f"setting {setting} a second time", number)
        if not isinstance(measured, dict) or not all(map(_numbers, measured.values())):
            raise self._damaged("no numbers by domain", number)
        self.measured[cast(int, setting)] = measured

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


def _numbers(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in value.values()
    )


def _line(value: Mapping[str, Any]) -> bytes:
    return f"{dumps({'check': _check(value), **value})}\n".encode()


def _check(value: Mapping[str, Any]) -> str:
    rest = {k: v for k, v in value.items() if k != "check"}
    return hashlib.sha256(dumps(rest).encode()).hexdigest()[:16]
