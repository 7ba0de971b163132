"""Files → rows with their positions: JSON Lines, JSON, CSV and Parquet, the first three gzipped."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from steer.errors import PairsError
from steer.pairs.pair import shown


class Row(NamedTuple):
    """A row as read, and the words that say where it stands."""

    where: str
    value: object


def read_file(path: Path, name: str) -> Iterator[Row]:
    """Return the rows of a file, read by its suffix.

    Args:
        path: The file.
        name: Its name as the caller wrote it, for errors.

    Returns:
        The rows; empty lines of JSON Lines and CSV are none.

    Raises:
        PairsError: The file is missing, unreadable, empty, damaged, not UTF-8, or of no known
            kind.
    """
    if not path.is_file():
        raise PairsError(
            f"{name} does not exist" if not path.exists() else f"{name} is not a file",
            found=f"no file {name}",
            expected=f"a file ending in {', '.join(_SUFFIXES)}",
            do="check the path",
        )
    suffix = file_suffix(path.name)
    if suffix is None:
        raise PairsError(
            f"{name} is of no known kind",
            found=f"suffix {path.suffix!r}",
            expected=f"a file ending in {', '.join(_SUFFIXES)}",
            do="rename or convert the file",
        )
    return _SUFFIXES[suffix](path, name)


def file_suffix(name: str) -> str | None:
    """Return the suffix by which a file is read, or ``None`` for an unknown one."""
    return next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), None)


def _read_jsonl(path: Path, name: str) -> Iterator[Row]:
    for number, line in enumerate(_read_text(path, name).split("\n"), start=1):
        if line.strip():
            yield Row(f"{name}, line {number}", _parse(line, name, first_line=number))


def _read_json(path: Path, name: str) -> Iterator[Row]:
    rows = _parse(_read_text(path, name), name)
    if not isinstance(rows, list):
        keys = f"an object with the keys {list(rows)}" if isinstance(rows, dict) else shown(rows)
        raise PairsError(
            f"{name} is not a list of objects",
            found=keys,
            expected='[{"prompt": ..., "chosen": ..., "rejected": ...}, ...]',
            do="write the list alone, or load it yourself and hand it to Pairs.load",
        )
    for number, row in enumerate(rows):
        yield Row(f"{name}, row {number} (counted from 0)", row)


def _read_csv(path: Path, name: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(_read_text(path, name), newline=""), strict=True)
    lines = _csv_lines(reader, name)
    _, header = next(lines)
    _check_unique(header, name)
    for number, cells in lines:
        where = f"{name}, line {number}"
        if len(cells) != len(header):
            raise PairsError(
                f"{where}: too {'many' if len(cells) > len(header) else 'few'} fields",
                found=f"{len(cells)} fields: {shown(cells)}",
                expected=f"{len(header)}: {header}",
                do='put fields that hold a comma, a quote or a line end in "quotes"',
            )
        yield Row(where, dict(zip(header, cells, strict=True)))


def _csv_lines(reader: Any, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not empty with the number of its first line."""
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise PairsError(
                f"{name}, line {number}: not valid CSV",
                found=str(error),
                expected='fields separated by commas, in "quotes" where needed',
                do="repair the file; JSON Lines has no such limits",
            ) from None
        if cells is None:
            return
        if cells:
            yield number, cells


def _read_parquet(path: Path, name: str) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.stat().st_size:
        raise _empty(name)
    try:
        with pq.ParquetFile(path) as file:
            _check_unique(file.schema_arrow.names, name)
            rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
            for number, row in enumerate(rows):
                yield Row(f"{name}, row {number} (counted from 0)", row)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(name, error, "a Parquet file") from None


def _read_text(path: Path, name: str) -> str:
    """Return the text of a file; a byte order mark in front of it is not part of the text."""
    gzipped = path.name.lower().endswith(".gz")
    try:
        data = gzip.decompress(path.read_bytes()) if gzipped else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(name, error, "a gzip file" if gzipped else "a file") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        line = data.count(b"\n", 0, at) + 1
        raise PairsError(
            f"{name} is not UTF-8",
            found=f"byte 0x{data[at]:02x} at offset {at}, in line {line}",
            expected="text encoded as UTF-8",
            do="convert the file to UTF-8",
        ) from None
    if not text.strip():
        raise _empty(name)
    return text


def _parse(text: str, name: str, first_line: int = 1) -> object:
    where = f"{name}, line {first_line}"
    try:
        return json.loads(text, object_pairs_hook=_unique_object)
    except json.JSONDecodeError as error:
        where = f"{name}, line {first_line + error.lineno - 1}, column {error.colno}"
        found, position = error.msg, error.pos
        near = shown(text[max(0, position - 20) : position + 20])
        found = f"{found}, near {near}"
    except (ValueError, RecursionError) as error:
        found = str(error)
    raise PairsError(
        f"{where}: not valid JSON",
        found=found,
        expected="complete JSON; one object per line in a .jsonl file, one list in a .json file",
        do="repair the file; if it was cut off, fetch it again; if it holds an object per line, "
        "name it .jsonl",
    ) from None


def _unique_object(items: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(items)
    if len(found) != len(items):
        names = [key for key, _ in items]
        raise ValueError(f"an object with a repeated key: {names}")
    return found


def _check_unique(header: list[str], name: str) -> None:
    repeated = sorted({column for column in header if header.count(column) > 1})
    if repeated:
        raise PairsError(
            f"{name} has columns of the same name",
            found=f"{repeated} more than once in {header}",
            expected="a name of its own for each column",
            do="rename or remove the repeated columns",
        )


def _empty(name: str) -> PairsError:
    return PairsError(
        f"{name} is empty",
        found="no text",
        expected="at least one pair",
        do="check that the file was written to its end",
    )


def _unreadable(name: str, error: Exception, kind: str) -> PairsError:
    return PairsError(
        f"{name} cannot be read",
        found=f"{type(error).__name__}: {error}",
        expected=f"{kind} that is whole and readable",
        do="check the file, or fetch it again",
    )


_SUFFIXES: dict[str, Callable[[Path, str], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".json": _read_json,
    ".json.gz": _read_json,
    ".csv": _read_csv,
    ".csv.gz": _read_csv,
    ".parquet": _read_parquet,
}
