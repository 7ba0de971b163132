"""Data sets in a folder that the user names."""

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steer.errors import HarnessError
from steer.store import path_of

Row = dict[str, Any]

# data set -> what has to lie in its folder, for error messages and documentation
EXPECTED = {
    "gsm8k": ("gsm8k/test.jsonl", "gsm8k/train.jsonl"),
    "humaneval": ("humaneval/HumanEval.jsonl",),
    "mbpp": ("mbpp/mbpp.jsonl",),
    "truthfulqa": ("truthfulqa/mc_task.json",),
    "anthropic_evals": ("anthropic_evals/NAME.jsonl",),
    "hh_rlhf": ("hh_rlhf/harmless-base/test.jsonl",),
}


def locate(data: object, name: str) -> Path:
    """Return where a file of a data set lies.

    Args:
        data: The folder that holds the data sets, or None.
        name: `SET/FILE`. `SET/raw/FILE` and a compressed `FILE.gz` are found as well.

    Raises:
        HarnessError: No folder was named, or there is no such file in it.
    """
    data_set, _, rest = name.partition("/")
    if data is None:
        raise HarnessError(
            f"{data_set} has to be read from a folder, and none was named",
            found="data=None",
            expected=f"a folder with {' and '.join(EXPECTED[data_set])}",
            do="pass data=FOLDER (--data FOLDER)",
        )
    folder = Path(os.path.expanduser(path_of(data, HarnessError)))
    for place in (folder / name, folder / data_set / "raw" / rest):
        for path in (place, place.with_name(place.name + ".gz")):
            if os.path.isfile(path):
                return path
    raise HarnessError(
        f"a file of {data_set} is missing",
        found="no such folder" if not folder.is_dir() else f"nothing at {folder / name}",
        expected=f"{folder / name}, the same under {data_set}/raw/, or either with .gz",
        do="download the data set as it is published and put it there, or name another folder",
    )


def read_json(path: Path) -> list[Row]:
    """Return the rows of a file that is one JSON list.

    Args:
        path: The file; `.gz` is decompressed.

    Raises:
        HarnessError: It cannot be read, or is no JSON list of objects.
    """
    rows = _parsed(_text(path), path, "")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _unreadable(path, f"{type(rows).__name__}, not a list of objects alone")
    return rows


def read_lines(path: Path) -> list[Row]:
    """Return the rows of a JSON-lines file.

    Args:
        path: The file; `.gz` is decompressed.

    Raises:
        HarnessError: It cannot be read, a line is no JSON object, or there is none.
    """
    rows = list(_rows(path))
    if not rows:
        raise _unreadable(path, "no line")
    return rows


def _rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        row = _parsed(line, path, f"line {number}: ")
        if not isinstance(row, dict):
            raise _unreadable(path, f"line {number}: {type(row).__name__}")
        yield row


def _parsed(text: str, path: Path, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, f"{where}{error}") from error


def _text(path: Path) -> str:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read().decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error


def _unreadable(path: Path, found: str) -> HarnessError:
    return HarnessError(
        f"{path.name} cannot be read",
        found=found,
        expected="JSON as the data set is published",
        do=f"download {path} again",
    )
