"""The unmerged weights of a merged model, kept in mapped files.

A parameter with the bits of the checkpoint that it was loaded from needs no copy. The others go to
one temporary file per entry. It has no name, so that the system frees its space however the process
ends.
"""

import logging
import mmap
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from steer.errors import CheckpointError, MergeError
from steer.network import Checkpoint
from steer.store import accessing
from steer.store._container import tensor_bytes

_LOG = logging.getLogger(__name__)
_ALIGNMENT = 64  # bytes


@dataclass(frozen=True, slots=True)
class Stamp:
    """The state of a file, to detect writes in place, which would change its mapping.

    A file that is replaced or removed leaves the mapping intact.
    """

    path: Path
    file: tuple[int, int]
    state: tuple[int, int]

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """Return the stamp of a file."""
        status = os.stat(path)
        return cls(path, (status.st_dev, status.st_ino), (status.st_size, status.st_mtime_ns))

    def check(self) -> None:
        """Raise `MergeError` if the file was written to in place."""
        try:
            now = Stamp.of(self.path)
        except FileNotFoundError:
            return
        if now.file == self.file and now.state != self.state:
            raise MergeError(
                "the unmerged weights are lost: their checkpoint was written to",
                found=f"{self.path.name} changed since it was merged into",
                expected="a file that stays as it is while its model is merged",
                do="load the model again; save a merged model into another folder",
            )


@dataclass(frozen=True, eq=False, slots=True)
class Pristine:
    """The unmerged values of a parameter: a view of a mapped file."""

    tensor: Tensor
    stamp: Stamp | None = None  # of a checkpoint

    def checked(self) -> Tensor:
        """Return the values, after checking that the file was not written to."""
        if self.stamp is not None:
            self.stamp.check()
        return self.tensor


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Return whether two tensors have the same dtype, shape and bits."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    bits = (tensor.detach().cpu().reshape(-1).view(torch.uint8) for tensor in (left, right))
    return torch.equal(*bits)


def secured(model: nn.Module | None, parameters: Mapping[str, Tensor]) -> dict[str, Pristine]:
    """Return the current values of parameters, kept in files."""
    found = _in_checkpoint(model, parameters)
    rest = {name: p for name, p in parameters.items() if name not in found}
    return {**found, **(_spilled(rest) if rest else {})}


def _in_checkpoint(
    model: nn.Module | None, parameters: Mapping[str, Tensor]
) -> dict[str, Pristine]:
    """Return the parameters whose bits are those of the model's checkpoint."""
    folder = _folder(model)
    if folder is None:
        return {}
    try:
        checkpoint = Checkpoint.open(folder)
    except CheckpointError as error:
        _LOG.info("%s holds no weights that can be mapped: %s", folder, error.found)
        return {}
    files = {name: file for file, names in checkpoint.files.items() for name in names}
    stamps = {file: Stamp.of(folder / file) for file in checkpoint.files}
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    found = {}
    for name, parameter in parameters.items():
        for stored in (name, name.removeprefix(prefix)):
            if stored in files and same_bits(checkpoint.tensor(stored), parameter):
                found[name] = Pristine(checkpoint.tensor(stored), stamps[files[stored]])
                break
    return found


def _folder(model: nn.Module | None) -> Path | None:
    """Return the local folder that a model was loaded from, if its configuration names one."""
    config = getattr(model, "config", None)
    name = getattr(config, "_name_or_path", None)
    if not name:
        return None
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    revision = getattr(config, "_commit_hash", None)
    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def _spilled(parameters: Mapping[str, Tensor]) -> dict[str, Pristine]:
    """Write parameters to a temporary file and map it."""
    folder, size = tempfile.gettempdir(), sum(p.nbytes for p in parameters.values())
    check_space(folder, size, "the unmerged weights cannot be kept")
    _LOG.info("keeping %d unmerged weights in a file of %d bytes", len(parameters), size)
    offsets = {}
    with accessing(folder, MergeError), tempfile.TemporaryFile(prefix="steer-") as file:
        for name, parameter in parameters.items():
            offsets[name] = file.seek(-(-file.tell() // _ALIGNMENT) * _ALIGNMENT)
            file.write(tensor_bytes(parameter))
        file.truncate(file.tell() + 1)  # nothing of length 0 can be mapped
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return {name: Pristine(_view(mapped, offsets[name], p)) for name, p in parameters.items()}


def _view(mapped: mmap.mmap, offset: int, like: Tensor) -> Tensor:
    if not like.numel():
        return torch.empty(like.shape, dtype=like.dtype)
    flat = torch.frombuffer(mapped, dtype=like.dtype, count=like.numel(), offset=offset)
    return flat.view(like.shape)


def check_space(folder: str | Path, needed: int, what: str) -> None:
    """Refuse to write more bytes than a folder has room for."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise MergeError(
            f"{what} on the disk",
            found=f"{free} bytes free in {folder}",
            expected=f"{needed} bytes",
            do="choose a folder on a larger disk; TMPDIR names that of unmerged weights",
        )
