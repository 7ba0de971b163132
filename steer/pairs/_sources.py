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

_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_LONGEST = 200  # characters of a name on the Hub, with room to spare
_FILES = 10_000  # of the directory of a data set
_SAVED = ("state.json", "dataset_dict.json")


def open_source(source: object, split: str | None) -> tuple[str, Iterable[Row]]:
    """Return the name of a source and its rows."""
    if isinstance(source, str | Path) and source != "":
        path, kind = _looked_at(source)
        if kind == "saved":
            return _dataset_rows(_load_saved(path, str(source)), str(source), split)
        if kind == "folder":
            _check_folder(path, str(source))
            return _dataset_rows(_load_named(str(path), split), str(source), None)
        if kind == "name":
            return _dataset_rows(_load_named(str(source), split), str(source), None)
        _refuse_split(split, str(source))
        return str(source), read_file(path, str(source))
    if _is_dataset(source):
        return _dataset_rows(source, type(source).__name__, split)
    if isinstance(source, list | tuple):
        _refuse_split(split, "a list of rows")
        return "list of rows", numbered(source, "list of rows")
    raise PairsError(
        "pairs cannot be loaded from this object",
        found=shown(source),
        expected="a path, the name of a data set, a datasets.Dataset, or a list of mappings",
        do="hand over rows as a list of dict; Pair objects go to Pairs.of",
    )


def _looked_at(source: str | Path) -> tuple[Path, str]:
    """Return the path of a source and its kind: `saved`, `folder`, `name` or `file`."""
    try:
        path = path_of(path_of(source, PairsError).expanduser(), PairsError)
    except RuntimeError as error:  # there is no such user
        raise PairsError(
            "no file can have this name",
            found=f"{shown(str(source))}: {error}",
            expected="a file, a directory, or the name of a data set on the Hub",
            do="write the path in full",
        ) from None
    if not os.path.lexists(path):
        return path, "name" if isinstance(source, str) and _is_hub_name(source) else "file"
    if any((path / file).is_file() for file in _SAVED):
        return path, "saved"
    return path, "folder" if path.is_dir() else "file"


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
    return looks and len(source) <= _LONGEST and ("/" in source or "." not in source)


def _is_dataset(source: object) -> bool:
    """Return whether a source is a data set; if ``datasets`` was never imported, none is."""
    module = sys.modules.get("datasets")
    kinds = ("Dataset", "IterableDataset", "DatasetDict", "IterableDatasetDict")
    return module is not None and isinstance(source, tuple(getattr(module, k) for k in kinds))


def _load_saved(path: Path, name: str) -> Any:
    import datasets

    try:
        return datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise _not_loaded(name, error) from error


def _load_named(name: str, split: str | None) -> Any:
    import datasets

    try:
        return datasets.load_dataset(name, split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise _not_loaded(name, error) from error


def _not_loaded(name: str, error: Exception) -> PairsError:
    return PairsError(
        f"the data set {name!r} cannot be loaded",
        found=f"{type(error).__name__}: {error}",
        expected="a file, a directory, or the name of a data set on the Hub",
        do="check name, split and connection, or hand over what datasets.load_dataset returns",
    )


def _dataset_rows(data: Any, name: str, split: str | None) -> tuple[str, Iterable[Row]]:
    """Return the rows of a data set as Python values, whatever its output format."""
    if isinstance(data, dict):
        if split is None and len(data) == 1:
            split = next(iter(data))
        if split not in data:
            raise PairsError(
                f"{name} has several splits" if split is None else f"{name} has no such split",
                found=f"split {split!r} asked for",
                expected=f"one of {', '.join(repr(str(key)) for key in data)}",
                do="choose one with split=",
            )
        data, name = data[split], f"{name}[{split}]"
    elif split is not None and str(data.split) != split:
        raise PairsError(
            f"{name} is not the split that was asked for",
            found=f"split {str(data.split) if data.split else None!r}",
            expected=f"split {split!r}",
            do="leave split= out, or hand over that split",
        )
    return name, numbered(data.with_format(None), name)


def _refuse_split(split: str | None, name: str) -> None:
    if split is not None:
        raise PairsError(
            f"{name} has no splits",
            found=f"split {split!r} asked for",
            expected="split= with a data set only",
            do="leave split= out; Pairs.split divides what was loaded",
        )
