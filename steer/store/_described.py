"""Files of tensors with a description: one JSON document in the metadata, and a digest of it.

Reading trusts nothing: sizes, names, dtypes, numbers and checksums are verified before a caller
builds anything, and nothing is unpickled.
"""

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Generic, TypeVar

import torch
from torch import Tensor

from steer.errors import SteerError, VectorFileError
from steer.store import _strict_json as strict_json
from steer.store._atomic import AtomicFile
from steer.store._container import (
    DTYPE_NAMES,
    Container,
    header_bytes,
    read_container,
    read_tensor,
    tensor_bytes,
)
from steer.store._paths import PathLike, accessing, file_size, path_of, readable
from steer.store._refusals import damaged

if TYPE_CHECKING:
    from steer.store._schema import Description

_R = TypeVar("_R", bound="Description")


@contextlib.contextmanager
def about(path: PathLike) -> Iterator[None]:
    """Turn every error inside into a `VectorFileError` that begins with the name of the file."""
    name = path_of(path, VectorFileError)
    try:
        with accessing(name, VectorFileError):
            yield
    except SteerError as error:
        what = error.what if error.what.startswith(f"{name}: ") else f"{name}: {error.what}"
        raise VectorFileError(
            what, found=error.found, expected=error.expected, do=error.do
        ) from error


@dataclass(frozen=True, slots=True)
class DescribedFile(Generic[_R]):
    """An open file whose description was checked, and agrees with its container."""

    record: _R
    _file: BinaryIO
    _container: Container

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors, checksums and values checked."""
        tensors = {}
        for name, info in self.record.tensors.items():
            tensors[name] = read_tensor(self._file, self._container, name)
            check_tensor(name, tensors[name], info.sha256)
        return tensors


@contextlib.contextmanager
def reading(path: PathLike, key: str, version: int, kind: type[_R]) -> Iterator[DescribedFile[_R]]:
    """Open a file with a description under a metadata key; errors begin with its name."""
    from steer.store._schema import Positive, validated

    with about(path), readable(path, VectorFileError, kind="a .safetensors file") as file:
        container = read_container(file, file_size(file), key=key)
        text = container.metadata[key]
        value = validated(dict[str, Any], "the description", strict_json.loads(text))
        found: int = validated(Positive, "format_version", value.get("format_version"))
        if found > version:
            raise VectorFileError(
                "the file was written by a newer version of this library",
                found=f"format version {found}",
                expected=f"format version {version}",
                do="upgrade: pip install --upgrade residual-steer",
            )
        if container.metadata.get(_digest_key(key)) != _digest(text):
            raise damaged(
                f"a description with SHA-256 {_digest(text)}", f"the {_digest_key(key)} beside it"
            )
        record = validated(kind, "", value)
        described = {name: (t.dtype, tuple(t.shape)) for name, t in record.tensors.items()}
        contained = {name: (e.dtype, tuple(e.shape)) for name, e in container.entries.items()}
        if described != contained:
            differing = sorted(set(described.items()) ^ set(contained.items()))[:4]
            raise damaged(f"tensors that differ from their description: {differing}", "the same")
        yield DescribedFile(record, file, container)


def check_tensor(name: str, tensor: Tensor, sha256: str) -> None:
    """Raise unless a tensor has the checksum of its description and finite values."""
    if (digest := hashlib.sha256(tensor_bytes(tensor)).hexdigest()) != sha256:
        raise damaged(f"bytes of {name!r} with SHA-256 {digest}", sha256)
    check_storable(name, tensor)


def described_header(
    key: str, document: object, tensors: Mapping[str, Tensor], *, size: int = 0
) -> bytes:
    """Return the start of a file with a description, filled with spaces up to `size` bytes."""
    text = strict_json.dumps(document)
    return header_bytes({key: text, _digest_key(key): _digest(text)}, tensors, size=size)


def save_described(
    path: PathLike,
    key: str,
    tensors: Mapping[str, Tensor],
    describe: Callable[[Mapping[str, object]], object],
) -> None:
    """Write tensors and what `describe` says of them to a file, whole or not at all."""
    with about(path):
        infos = {name: describe_tensor(name, t, tensor_bytes(t)) for name, t in tensors.items()}
        header = described_header(key, describe(infos), tensors)
        with AtomicFile(path, VectorFileError) as out:
            out.write(header)
            for tensor in tensors.values():
                out.write(tensor_bytes(tensor))
            out.commit()


def describe_tensor(
    name: str, tensor: Tensor, data: bytes | memoryview | None = None
) -> dict[str, object]:
    """Return the description of a tensor and its bytes, or one of that length without them."""
    digest = "0" * 64
    if data is not None:
        check_storable(name, tensor)
        digest = hashlib.sha256(data).hexdigest()
    return {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "sha256": digest}


def check_storable(name: str, tensor: Tensor) -> None:
    """Refuse a tensor that is empty or not of floats, or that holds NaN or infinity."""
    if tensor.dtype not in DTYPE_NAMES or tensor.numel() == 0:
        raise VectorFileError(
            "a tensor cannot be stored",
            found=f"{name!r} of dtype {tensor.dtype} and shape {tuple(tensor.shape)}",
            expected="float16, bfloat16, float32 or float64, and at least one element",
            do="convert it first",
        )
    low, high = (float(end) for end in torch.aminmax(tensor.detach()))  # NaN if there is one
    if not (-math.inf < low and high < math.inf):
        bad = int((~torch.isfinite(tensor)).sum())
        raise VectorFileError(
            "a tensor holds NaN or infinity",
            found=f"{bad} of {tensor.numel()} values of {name!r}",
            expected="finite values",
            do="find out what made them: an overflow in float16 is common",
        )


def _digest_key(key: str) -> str:
    return f"{key}.sha256"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
