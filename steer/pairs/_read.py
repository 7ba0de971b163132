"""From files to rows: JSON Lines, JSON and CSV, plain or gzipped, and Parquet."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from steer.errors import PairsError
from steer.pairs._lines import check_unique, read_lines
from steer.pairs._pair import shown
from steer.pairs._parquet import read_parquet


class Row(NamedTuple):
    """A row as read, and its place in words."""

    where: str
    value: object


def numbered(rows: Iterable[object], name: str) -> Iterator[Row]:
    """Yield rows with their numbers, counted from 0."""
    for number, row in enumerate(rows):
        yield Row(f"{name}, row {number} (counted from 0)", row)


def read_file(path: Path, name: str) -> Iterator[Row]:
    """Return the rows of a file, read by its suffix; empty lines of JSON Lines and CSV are none."""
    known = f"a file ending in {', '.join(_SUFFIXES)}"
    if not path.is_file():
        raise PairsError(
            f"{name} does not exist" if not path.exists() else f"{name} is not a file",
            found=f"no file {name}",
            expected=known,
            do="check the path",
        )
    suffix = file_suffix(path.name)
    if suffix is None:
        raise PairsError(
            f"{name} has an unknown suffix",
            found=f"suffix {path.suffix!r}",
            expected=known,
            do="rename or convert the file",
        )
    return _SUFFIXES[suffix](path, name)


def file_suffix(name: str) -> str | None:
    """Return the suffix by which a file is read, or ``None`` for an unknown one."""
    return next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), None)


def _read_jsonl(path: Path, name: str) -> Iterator[Row]:
    for number, line in enumerate(read_lines(path, name), start=1):
        if line.strip():
            yield Row(f"{name}, line {number}", _parse(line.rstrip(), name, first_line=number))


def _read_json(path: Path, name: str) -> Iterator[Row]:
    rows = _parse("".join(read_lines(path, name)), name)
    if not isinstance(rows, list):
        keys = f"an object with the keys {list(rows)}" if isinstance(rows, dict) else shown(rows)
        raise PairsError(
            f"{name} is not a list of objects",
            found=keys,
            expected='[{"prompt": ..., "chosen": ..., "rejected": ...}, ...]',
            do="write the list alone, or load it yourself and pass it to Pairs.load",
        )
    yield from numbered(rows, name)


def _read_csv(path: Path, name: str) -> Iterator[Row]:
    text = (part for line in read_lines(path, name) for part in io.StringIO(line, newline=""))
    reader = csv.reader(text, strict=True)
    header: list[str] = []
    while True:
        where = f"{name}, line {reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise PairsError(
                f"{where}: not valid CSV",
                found=str(error),
                expected='fields separated by commas, in "quotes" where needed',
                do="repair the file; JSON Lines has no such limits",
            ) from None
        if cells is None:
            return
        if not header:
            header = cells
            check_unique(header, name)
        elif cells and len(cells) != len(header):
            raise PairsError(
                f"{where}: too {'many' if len(cells) > len(header) else 'few'} fields",
                found=f"{len(cells)} fields: {shown(cells)}",
                expected=f"{len(header)}: {shown(header)}",
                do='put fields that hold a comma, a quote or a line end in "quotes"',
            )
        elif cells:
            yield Row(where, dict(zip(header, cells, strict=True)))


def _parse(text: str, name: str, first_line: int = 1) -> object:
    where = f"{name}, line {first_line}"
    try:
        return json.loads(text, object_pairs_hook=_unique_object)
    except json.JSONDecodeError as error:
        where = f"{name}, line {first_line + error.lineno - 1}, column {error.colno}"
        near = text[max(0, error.pos - 20) : error.pos + 20]
        found = f"{error.msg}, near {shown(near)}"
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
        raise ValueError(f"an object with a repeated key: {shown([key for key, _ in items])}")
    return found


_SUFFIXES: dict[str, Callable[[Path, str], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".json": _read_json,
    ".json.gz": _read_json,
    ".csv": _read_csv,
    ".csv.gz": _read_csv,
    ".parquet": lambda path, name: numbered(read_parquet(path, name), name),
}
