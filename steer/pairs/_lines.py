"""Text files, plain or gzipped, read lazily; what is compressed, within bounds."""

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from steer.errors import PairsError
from steer.pairs._pair import shown

MIB = 2**20
_FLOOR, _RATIO = 4 * MIB, 50  # what a compressed file may hold: bytes, or times its own size
_ENDLESS = 2**62
_BOM = b"\xef\xbb\xbf"


def may_hold(path: Path) -> int:
    """Return the number of bytes that a compressed file may hold."""
    return max(_FLOOR, _RATIO * path.stat().st_size)


def read_lines(path: Path, name: str) -> Iterator[str]:
    """Yield the lines of a file with line ends; leading blank lines become empty ones."""
    compressed = path.name.lower().endswith(".gz")
    most = may_hold(path) if compressed else _ENDLESS
    offset, filled = 0, False
    with (
        reading(name, "a gzip file" if compressed else "a file", OSError, EOFError, zlib.error),
        gzip.open(path) if compressed else path.open("rb") as file,
    ):
        for number in count(1):
            data = file.readline(most - offset + 1)
            if not data:
                break
            if offset + len(data) > most:
                raise too_much(name, most)
            text = _decoded(data, name, offset, number)
            filled = filled or bool(text.strip())
            offset += len(data)
            yield text if filled else "\n"
    if not filled:
        raise empty(name)


def check_unique(header: Sequence[str], name: str) -> None:
    """Raise if two columns have the same name."""
    repeated = [column for column, count in Counter(header).items() if count > 1]
    if repeated:
        raise PairsError(
            f"{name} has columns of the same name",
            found=f"{shown(repeated)} more than once in {shown(header)}",
            expected="a different name for each column",
            do="rename or remove the repeated columns",
        )


def too_much(name: str, most: int) -> PairsError:
    """Return the error for a compressed file that expands to more than its limit."""
    return PairsError(
        f"{name} expands to far more than its size",
        found=f"more than {most / MIB:.0f} MiB when decompressed",
        expected=f"at most {_RATIO} times its own size, or {_FLOOR // MIB} MiB",
        do="if you trust it, write it as plain .jsonl and load that, or read its beginning with "
        "limit=…",
    )


def empty(name: str) -> PairsError:
    """Return the error for a file without text."""
    return PairsError(
        f"{name} is empty",
        found="no text",
        expected="at least one pair",
        do="check that the file was written completely",
    )


@contextmanager
def reading(name: str, kind: str, *damages: type[Exception]) -> Iterator[None]:
    """Turn the exceptions of a reader on a damaged file into an error that names the file."""
    try:
        yield
    except damages as error:
        raise PairsError(
            f"{name} cannot be read",
            found=f"{type(error).__name__}: {error}"[:300],
            expected=f"{kind} that is complete and readable",
            do="check the file, or fetch it again",
        ) from None


def _decoded(data: bytes, name: str, offset: int, number: int) -> str:
    """Return a line as text; offset and line number locate it in the file for errors."""
    mark = len(_BOM) if not offset and data.startswith(_BOM) else 0
    try:
        return data[mark:].decode()
    except UnicodeDecodeError as error:
        at = mark + error.start
        raise PairsError(
            f"{name} is not UTF-8",
            found=f"byte 0x{data[at]:02x} at offset {offset + at}, in line {number}",
            expected="text encoded as UTF-8",
            do="convert the file to UTF-8",
        ) from None
