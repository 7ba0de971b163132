"""From the sources of ``Pairs.load`` to rows: files, directories, data sets, rows in memory."""

import os
import re
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from steer.errors import PairsError
from steer.pairs._pair import shown
from steer.pairs._read import Row, file_suffix, numbered, read_file
from steer.store import path_of

_HUB_NAME = re.compile(r"[\w-][\w.-]{0,95}(/[\w-][\w.-]{0,95})?")
_FILES = 10_000  # of the directory of a data set
_SAVED = ("state.json", "dataset_dict.json")


def open_source(source: object, split: str | None) -> tuple[str, Iterable[Row]]:
    """Return the name of a source and its rows."""
    if isinstance(source, str | Path) and source != "":
        name = str(source)
        path = path_of(os.path.expanduser(path_of(source, PairsError)), PairsError)
        there = os.path.lexists(path)
        if there and any((path / file).is_file() for file in _SAVED):
            return _dataset_rows(_loaded(name, "load_from_disk", str(path)), name, split)
        if there and path.is_dir():
            _check_folder(path, name)
            return _dataset_rows(_loaded(name, "load_dataset", str(path), split=split), name, None)
        if not there and isinstance(source, str) and _is_hub_name(name):
            return _dataset_rows(_loaded(name, "load_dataset", name, split=split), name, None)
        _refuse_split(split, name)
        return name, read_file(path, name)
    if _is_dataset(source):
        return _dataset_rows(source, type(source).__name__, split)
    if isinstance(source, list | tuple):
        _refuse_split(split, "a list of rows")
        return "list of rows", numbered(source, "list of rows")
    raise PairsError(
        "pairs cannot be loaded from this object",
        found=shown(source),
        expected="a path, the name of a data set, a datasets.Dataset, or a list of mappings",
        do="pass rows as a list of dict; Pair objects go to Pairs.of",
    )


def _check_folder(path: Path, name: str) -> None:
    """Raise for a folder with too many files for a data set, since `datasets` looks at each."""
    entries = (entry for _, folders, files in os.walk(path) for entry in (*folders, *files))
    if len(list(islice(entries, _FILES + 1))) > _FILES:
        raise PairsError(
            f"{name} holds too many files for a data set",
            found=f"more than {_FILES} files and directories below it",
            expected=f"the directory of a data set, with at most {_FILES}",
            do="name the directory or the file with the pairs",
        )


def _is_hub_name(source: str) -> bool:
    looks = _HUB_NAME.fullmatch(source) is not None and file_suffix(source) is None
    return looks and ("/" in source or "." not in source)


def _is_dataset(source: object) -> bool:
    """Return whether a source is a data set; if ``datasets`` was never imported, none is."""
    module = sys.modules.get("datasets")
    kinds = ("Dataset", "IterableDataset", "DatasetDict", "IterableDatasetDict")
    return module is not None and isinstance(source, tuple(getattr(module, k) for k in kinds))


def _loaded(name: str, function: str, *arguments: Any, **options: Any) -> Any:
    """Return what a function of `datasets` loads."""
    import datasets

    try:
        return getattr(datasets, function)(*arguments, **options)
    except (
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        datasets.exceptions.DatasetsError,
    ) as error:
        raise PairsError(
            f"the data set {name!r} cannot be loaded",
            found=f"{type(error).__name__}: {error}",
            expected="a file, a directory, or the name of a data set on the Hub",
            do="check name, split and connection, or pass what datasets.load_dataset returns",
        ) from error


def _dataset_rows(data: Any, name: str, split: str | None) -> tuple[str, Iterable[Row]]:
    """Return the rows of a data set as Python values, whatever its output format."""
    if isinstance(data, dict):
        if split is None and len(data) == 1:
            split = next(iter(data))
        if split not in data:
            raise PairsError(
                f"{name} has several splits" if split is None else f"{name} has no such split",
                found=f"requested split {split!r}",
                expected=f"one of {', '.join(repr(str(key)) for key in data)}",
                do="choose one with split=",
            )
        data, name = data[split], f"{name}[{split}]"
    elif split is not None and str(data.split) != split:
        raise PairsError(
            f"{name} is not the requested split",
            found=f"split {str(data.split) if data.split else None!r}",
            expected=f"split {split!r}",
            do="omit split=, or pass that split",
        )
    return name, numbered(data.with_format(None), name)


def _refuse_split(split: str | None, name: str) -> None:
    if split is not None:
        raise PairsError(
            f"{name} has no splits",
            found=f"requested split {split!r}",
            expected="split= with a data set only",
            do="omit split=; Pairs.split splits the loaded pairs",
        )
