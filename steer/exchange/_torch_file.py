"""Files of `torch.save` that hold tensors alone: read without running anything that they name."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steer.errors import VectorFileError
from steer.store import accessing, readable, write_bytes

_LONGEST = 2**30  # bytes of the records of a file, unpacked
_MOST = 2**26  # elements of a tensor, which may be more than it stores


def save_tensors(path: Path, value: object) -> None:
    """Write tensors, or a dict of tensors and plain values, whole or not at all."""
    out = io.BytesIO()
    torch.save(value, out)
    write_bytes(path, out.getvalue(), VectorFileError)


def load_tensors(path: Path) -> Any:
    """Return what a file holds, on the CPU; objects are refused, and tensors are plain."""
    with readable(path, VectorFileError) as file, accessing(path, VectorFileError):
        with zipfile.ZipFile(file) as records:
            if sum(record.file_size for record in records.infolist()) > _LONGEST:
                raise ValueError(f"more than {_LONGEST} bytes when unpacked")
        file.seek(0)
        value = torch.load(file, map_location="cpu", weights_only=True)
    for tensor in _tensors(value):
        plain = type(tensor) in (Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
        if tensor.is_meta or not plain or tensor.numel() > _MOST:
            raise ValueError(f"a tensor of {tensor.dtype} and shape {tuple(tensor.shape)}")
    return value


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)
