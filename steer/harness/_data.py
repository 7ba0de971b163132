"""Local files of data sets as lm-eval's documents, for `custom_dataset` of the task files."""

import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer.errors import HarnessError
from steer.store import path_of

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, Any]
Document = Callable[[Row], Row | str | None]  # a str says why a row is left out

_NUMBERS = ("task_id", "labels")  # members that need not be text
_UNREADABLE = (OSError, EOFError, ValueError, RecursionError, StopIteration)  # the last if empty


def documents(
    data: str | None = None,
    *,
    data_files: Mapping[str, str],
    document: Document,
    persona: str | None = None,
    **_: Any,
) -> "dict[str, Dataset]":
    """Return the splits of a task, read from the folder `data` by lm-eval's `custom_dataset`."""
    from datasets import Dataset

    found = {}
    for split, file in data_files.items():
        path = locate(data, file.format(persona=persona))
        found[split] = Dataset.from_list(_made(_rows(path), document, path.name))
    return found


def locate(data: object, name: str) -> Path:
    """Return where a file of a data set lies: SET/FILE, SET/raw/FILE, or either with .gz."""
    data_set, _, rest = name.partition("/")
    if data is None:
        raise HarnessError(
            f"{data_set} has to be read from a folder, and none was named",
            found="data=None",
            expected=f"a folder with {name}",
            do="pass data=FOLDER",
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


def _rows(path: Path) -> "Dataset":
    """Return the rows of a JSON, JSON-lines or Parquet file, read by `datasets` without a cache."""
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    read = Dataset.from_parquet if path.suffix == ".parquet" else Dataset.from_json
    with tempfile.TemporaryDirectory(prefix="steer-") as cache:
        try:
            return read(str(path), cache_dir=cache, keep_in_memory=True)
        except (*_UNREADABLE, DatasetGenerationError) as error:
            cause = error.__cause__ or error
            raise HarnessError(
                f"{path.name} cannot be read",
                found=f"{type(cause).__name__}: {cause}",
                expected="rows as the data set is published",
                do=f"download {path} again",
            ) from error


def _made(rows: "Dataset", document: Document, name: str) -> list[Row]:
    """Return the documents of rows, without those for which there is none."""
    found: list[Row] = []
    left_out: Counter[str] = Counter()
    for number, row in enumerate(rows, start=1):
        try:
            made = document(row)
            if isinstance(made, str):
                left_out[made] += 1
            elif made is not None:
                found.append(_whole(made))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise HarnessError(
                f"row {number} (counted from 1) of {name} is not of the published shape",
                found=f"{type(error).__name__}: {error}; {str(row)[:120]}",
                expected="the members of the data set as it is published",
                do="download the data set again",
            ) from error
    if not found:
        raise HarnessError(
            f"{name} has no document for this task",
            found=f"{len(rows)} rows, none of them used",
            expected="at least one",
            do="download the data set again",
        )
    for reason, count in left_out.items():
        said = f"{name}: {count} of {len(rows)} rows are left out; {reason}"
        warnings.warn(said, stacklevel=2)
    return found


def _whole(document: Row) -> Row:
    """Return a document that can be asked, scored and kept to its end."""
    for name, value in document.items():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, str):
                part.encode()  # half of a surrogate pair could be neither asked nor kept
            elif name not in _NUMBERS:
                raise TypeError(f"{name!r} holds {type(part).__name__} in place of text")
    if not all(choice.strip() for choice in document.get("choices", ())):
        raise ValueError("an answer is empty")  # it would have no likelihood
    if 1 not in document.get("labels", (1,)):
        raise ValueError("no answer is labelled 1")
    return document
