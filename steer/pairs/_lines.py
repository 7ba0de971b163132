"""Text files, plain or gzipped, read lazily and within bounds."""

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from steer.errors import PairsError
from steer.pairs._pair import shown

MIB = 2**20
_LINE = 16 * MIB  # bytes of one line: no model reads a pair of that length
_FLOOR, _RATIO = 4 * MIB, 50  # what a compressed file may hold: bytes, or times its own size
_BOM = b"\xef\xbb\xbf"


def may_hold(size: int) -> int:
    """Return the number of bytes that a compressed file of some size may hold."""
    return max(_FLOOR, _RATIO * size)


def read_lines(path: Path, name: str) -> Iterator[str]:
    """Yield the lines of a file with line ends; leading blank lines become empty ones."""
    offset, filled = 0, False
    with _opened(path, name) as file:
        most = _most(path)
        number = 0
        while data := file.readline(_LINE + 1):
            number += 1
            if len(data) > _LINE:
                raise PairsError(
                    f"{name}, line {number}: longer than {_LINE // MIB} MiB",
                    found=f"{data[:60]!r}…",
                    expected="one pair in each line",
                    do="check how the file was written",
                )
            if most is not None and offset + len(data) > most:
                raise too_much(name, most)
            text = _decoded(data, name, offset, number)
            filled = filled or bool(text.strip())
            offset += len(data)
            yield text if filled else "\n"
    if not filled:
        raise empty(name)


def read_text(path: Path, name: str) -> str:
    """Return the whole text of a file, without a byte order mark."""
    with _opened(path, name) as file:
        most = _most(path)
        data = file.read() if most is None else file.read(most + 1)
    if most is not None and len(data) > most:
        raise too_much(name, most)
    text = _decoded(data, name, 0, 1)
    if not text.strip():
        raise empty(name)
    return text


def check_unique(header: Sequence[str], name: str) -> None:
    """Raise if two columns have the same name."""
    repeated = [column for column, count in Counter(header).items() if count > 1]
    if repeated:
        raise PairsError(
            f"{name} has columns of the same name",
            found=f"{shown(repeated)} more than once in {shown(header)}",
            expected="a name of its own for each column",
            do="rename or remove the repeated columns",
        )


def too_much(name: str, most: int) -> PairsError:
    """Return the error for a compressed file that holds more than it may."""
    return PairsError(
        f"{name} holds far more than its size says",
        found=f"more than {most / MIB:.0f} MiB when decompressed",
        expected=f"at most {_RATIO} times its own size, or {_FLOOR // MIB} MiB",
        do="if it is trusted, write it as plain .jsonl and load that, or read its beginning with "
        "limit=…",
    )


def empty(name: str) -> PairsError:
    """Return the error for a file without text."""
    return PairsError(
        f"{name} is empty",
        found="no text",
        expected="at least one pair",
        do="check that the file was written to its end",
    )


def unreadable(name: str, error: Exception, kind: str) -> PairsError:
    """Return the error for a file that cannot be read."""
    return PairsError(
        f"{name} cannot be read",
        found=f"{type(error).__name__}: {error}"[:300],
        expected=f"{kind} that is whole and readable",
        do="check the file, or fetch it again",
    )


@contextmanager
def _opened(path: Path, name: str) -> Iterator[IO[bytes]]:
    try:
        with gzip.open(path, "rb") if _compressed(path) else path.open("rb") as file:
            yield file  # type: ignore[misc]
    except (OSError, EOFError, zlib.error) as error:
        kind = "a gzip file" if _compressed(path) else "a file"
        raise unreadable(name, error, kind) from None


def _compressed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _most(path: Path) -> int | None:
    return may_hold(path.stat().st_size) if _compressed(path) else None


def _decoded(data: bytes, name: str, offset: int, number: int) -> str:
    """Return bytes as text; offset and line number locate them in the file for errors."""
    mark = len(_BOM) if not offset and data.startswith(_BOM) else 0
    try:
        return data[mark:].decode()
    except UnicodeDecodeError as error:
        at = mark + error.start
        line = number + data.count(b"\n", 0, at)
        raise PairsError(
            f"{name} is not UTF-8",
            found=f"byte 0x{data[at]:02x} at offset {offset + at}, in line {line}",
            expected="text encoded as UTF-8",
            do="convert the file to UTF-8",
        ) from None
