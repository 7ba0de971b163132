"""The file that a sweep is saved to as it goes: an SQLite database, locked while the sweep runs."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from steer.errors import SelectionError
from steer.measure._data import Measure, Measured
from steer.measure._request import measure_name, parts_of
from steer.store import PathLike, folder_made, target_of

_TABLE = "CREATE TABLE steer_sweep_3 (setting INTEGER PRIMARY KEY, content TEXT, digest TEXT)"
_HEAD = -1  # the row that says which request the file belongs to
_LONGEST = 2**25  # bytes of a row
_BUSY = ("another sweep is being saved to {}", "wait until it is done, or save to another file")
_DISK = ("{}: the file cannot be accessed", "check path, permissions and space, or save locally")
_DAMAGED = ("{} is damaged, or no file of a sweep of this version", "save to another file")
_CAUSES = {sqlite3.SQLITE_BUSY: _BUSY, sqlite3.SQLITE_LOCKED: _BUSY} | dict.fromkeys(
    (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY),
    _DISK,
)


class Saved:
    """What a sweep has measured so far, in a file that it holds locked until it is closed."""

    def __init__(
        self, path: PathLike, fingerprint: str, measure: Measure, max_tokens: int | None
    ) -> None:
        self.path = target_of(path, SelectionError)
        self.head: dict[str, Any] = {"fingerprint": fingerprint, "max_tokens": max_tokens}
        self.head |= {"measure": measure_name(measure), "parts": parts_of(measure)}
        folder_made(self.path.parent, SelectionError)
        with self._accessing():
            self._database = sqlite3.connect(self.path, timeout=0)
        try:
            with self._accessing():
                rows = self._opened()
            self._check(rows.pop(_HEAD, {}))
        except BaseException:
            self.close()
            raise
        self.measured: dict[int, Measured] = rows

    def close(self) -> None:
        """Let other sweeps use the file."""
        self._database.close()

    def add(self, measured: Mapping[int, Measured]) -> None:
        """Save finished settings, all of them or none."""
        with self._accessing(), self._database:
            self._write(measured)

    def _opened(self) -> dict[int, Any]:
        """Lock the file and return its rows; write the first into a new one."""
        run = self._database.execute
        self._database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        run("PRAGMA locking_mode=EXCLUSIVE")
        run("BEGIN EXCLUSIVE")
        tables = run("SELECT sql FROM sqlite_master").fetchall()
        if not self.path.stat().st_size:
            run(_TABLE)
            self._write({_HEAD: self.head})
            self._database.commit()
        elif tables != [(_TABLE,)]:
            raise sqlite3.DatabaseError("it holds tables of something else")
        rows = {}
        for k, text, digest in run("SELECT * FROM steer_sweep_3"):
            if digest != _digest(k, text):
                raise sqlite3.DatabaseError(f"the digest of row {k} does not fit")
            rows[k] = json.loads(text)
        return rows

    def _write(self, rows: Mapping[int, Any]) -> None:
        texts = [(k, json.dumps(row)) for k, row in rows.items()]
        self._database.executemany(
            "INSERT INTO steer_sweep_3 VALUES (?, ?, ?)", [(k, t, _digest(k, t)) for k, t in texts]
        )

    def _check(self, head: dict[str, Any]) -> None:
        """Refuse the file of another request; what changed in a measure of one name is named."""
        ours, self.head = self.head, head
        if head.get("fingerprint") == ours["fingerprint"]:
            return
        changed = ""
        if head.get("measure") == ours["measure"]:
            pairs = {*ours["parts"].items()} ^ {*head["parts"].items()}
            names = ", ".join(sorted({name for name, _ in pairs}))
            changed = f"; changed in {ours['measure']}: {names}" if names else ""
        raise SelectionError(
            f"{self.path} belongs to another sweep",
            found=f"fingerprint {head.get('fingerprint')}{changed}",
            expected=f"{ours['fingerprint']}: this model, composition, data, grid and measure",
            do="save to another file, or repeat the request that the file was begun with",
        )

    @contextmanager
    def _accessing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            what, do = _CAUSES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, _DAMAGED)
            expected = "a local file that one sweep at a time writes and nothing else changes"
            raise SelectionError(
                what.format(self.path), found=str(error), expected=expected, do=do
            ) from error


def _digest(setting: object, text: object) -> str:
    return hashlib.sha256(f"{setting} {text}".encode()).hexdigest()[:16]
