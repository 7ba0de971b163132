"""A safetensors checkpoint in a folder, read tensor by tensor from mapped files."""

import json
import os
from collections.abc import KeysView, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from steer.errors import CheckpointError
from steer.store import accessing, path_of, read_file

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
BESIDE = ["*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]  # configuration, tokenizer
_LONGEST = 2**26  # bytes of a JSON file: several times what the index of the largest models needs
_UNPICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class Checkpoint:
    """A model's weights on disk. Opening reads headers only; tensors are views of mapped files.

    Args:
        folder: The folder.
        config: Content of its `config.json`; empty if there is none.
        files: File names, in reading order.

    Raises:
        CheckpointError: A file is damaged or not a safetensors file, or a name occurs twice.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], files: Sequence[str]) -> None:
        self.folder = folder
        self.config: Mapping[str, Any] = MappingProxyType(dict(config))
        self._handles = {name: _opened(folder / name) for name in files}
        self.files: Mapping[str, tuple[str, ...]] = MappingProxyType(
            {name: tuple(sorted(handle.keys())) for name, handle in self._handles.items()}
        )
        self._file_of: dict[str, str] = {}
        for file, names in self.files.items():
            for name in names:
                if name in self._file_of:
                    raise _unusable(
                        folder, f"{name} in {self._file_of[name]} and in {file}", "each tensor once"
                    )
                self._file_of[name] = file

    @classmethod
    def open(cls, source: str | Path, *, revision: str | None = None) -> "Checkpoint":
        """Open a checkpoint: `model.safetensors`, or the shards that its index names.

        Args:
            source: Folder or Hub id; only the files needed are downloaded.
            revision: Branch, tag or commit of a Hub model.

        Returns:
            The checkpoint.

        Raises:
            CheckpointError: The checkpoint does not exist, has no safetensors files (pickles are
                never read), has a damaged file, or its index and files disagree.
        """
        path = path_of(source, CheckpointError)
        with accessing(source, CheckpointError):
            folder = path if path.is_dir() else _fetched(str(source), revision)
            checkpoint = cls(folder, _json(folder / CONFIG), _weight_files(folder))
            _check_index(checkpoint)
        return checkpoint

    @property
    def names(self) -> KeysView[str]:
        """The tensors' names, file by file."""
        return self._file_of.keys()

    def tensor(self, name: str) -> Tensor:
        """Return a tensor as a view of the mapped file; do not write to it.

        Pages are read when they are accessed, so the dtype and the shape cost nothing; the system
        may drop them again, so they do not count as memory of the process.

        Args:
            name: Its name.

        Raises:
            CheckpointError: There is no such tensor, or torch has no such dtype.
        """
        from safetensors import SafetensorError

        if name not in self._file_of:
            raise _unusable(self.folder, f"no tensor {name!r}", "one of checkpoint.names")
        try:
            tensor: Tensor = self._handles[self._file_of[name]].get_tensor(name)
        except SafetensorError as error:
            raise _unusable(self.folder, f"{name}: {error}", "a dtype of torch") from error
        return tensor

    def __repr__(self) -> str:
        size = f"{len(self.names)} tensors in {len(self.files)} files"
        return f"Checkpoint({str(self.folder)!r}, {size})"


def _opened(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a safetensors file, or a damaged one",
            found=error,
            expected="8 bytes of header length, a JSON header, tensors that fill the file",
            do="fetch the file again (a Git LFS pointer is fetched with `git lfs pull`)",
        ) from error


def _weight_files(folder: Path) -> list[str]:
    """Return the names of the weight files: those of the index, else the only one."""
    if (folder / INDEX).is_file():
        files = sorted(set(_weight_map(folder).values()))
        lost = [n for n in files if Path(n).name != n or not (folder / n).is_file()]
        if lost:
            found = f"{INDEX} names {', '.join(map(repr, lost[:4]))}"
            raise _unusable(folder, found, "files of the folder itself, and all of them")
        return files
    if (folder / SINGLE).is_file():
        return [SINGLE]
    present = sorted(path.name for path in folder.glob("*.safetensors"))
    if len(present) == 1:
        return present
    pickled = sorted(path.name for pattern in _UNPICKLED for path in folder.glob(pattern))
    found = ", ".join((present or pickled)[:4]) or "no file of weights"
    raise CheckpointError(
        f"{folder}: no weights that can be read",
        found=found,
        expected=f"{INDEX} with its shards, or {SINGLE}",
        do="pickles are never read: load the model elsewhere, and write it with "
        "model.save_pretrained(folder)"
        if pickled
        else "name the folder of one model, written by model.save_pretrained(folder)",
    )


def _weight_map(folder: Path) -> dict[str, str]:
    found = _json(folder / INDEX).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise _unusable(folder, f"{INDEX} without a weight_map", "a map from tensors to files")
    return found


def _check_index(checkpoint: Checkpoint) -> None:
    """Refuse an index and files that disagree: a shard comes from another model."""
    if not (checkpoint.folder / INDEX).is_file():
        return
    listed = set(_weight_map(checkpoint.folder).items())
    held = {(name, file) for file, names in checkpoint.files.items() for name in names}
    if differing := sorted(listed ^ held):
        name, file = differing[0]
        where = INDEX if (name, file) in listed else "the file"
        raise _unusable(
            checkpoint.folder,
            f"{len(differing)} tensors that only one of {INDEX} and the shards names: {name} "
            f"in {file} ({where} alone)",
            "shards that hold what the index says",
        )


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(read_file(path, CheckpointError, most=_LONGEST).decode())
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise _unusable(path.parent, f"{path.name}: {error}", "JSON") from error
    if not isinstance(value, dict):
        raise _unusable(path.parent, f"{path.name} holds a {type(value).__name__}", "an object")
    return value


def fetched(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Return the local folder of a Hub repository, after downloading some of its files."""
    from huggingface_hub import snapshot_download

    if os.path.isfile(name):
        raise CheckpointError(
            f"{name}: a checkpoint is a folder, not a file",
            found="a GGUF file" if name.lower().endswith(".gguf") else "a file",
            expected=f"the folder with {CONFIG} and safetensors files, or the id of a model",
            do="load it, and pass the model or the folder that its save_pretrained writes: "
            "steer.Model.from_pretrained(file).hf_model",
        )
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{name}: no such folder, and the Hub does not provide it",
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
            expected="a folder, or the id of a model on the Hub",
            do="check the name, the network and your access to the repository",
        ) from error


def _fetched(name: str, revision: str | None) -> Path:
    folder = fetched(name, revision, BESIDE)
    files = sorted(set(_weight_map(folder).values())) if (folder / INDEX).is_file() else [SINGLE]
    return fetched(name, revision, [*BESIDE, *files])


def _unusable(folder: Path, found: str, expected: str) -> CheckpointError:
    return CheckpointError(
        f"{folder}: this checkpoint cannot be used",
        found=found,
        expected=expected,
        do="fetch or write the checkpoint again, into an empty folder",
    )
