"""Writing and reading vector files."""

import contextlib
import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import BinaryIO

import torch
from torch import Tensor

from steer.algebra._file.describe import checksum, describe, describe_tensor
from steer.algebra._file.document import Document, build_vector, check_version, read_document
from steer.algebra._file.layout import DIGEST_KEY, KEY, named_tensors
from steer.algebra._vector import Vector
from steer.errors import SteerError, VectorFileError
from steer.store import AtomicFile, PathLike, accessing, file_size, path_of, readable
from steer.store import _fields as fields
from steer.store import _strict_json as strict_json
from steer.store._container import (
    DTYPE_NAMES,
    Container,
    header_bytes,
    read_container,
    read_tensor,
    tensor_bytes,
)


def save(vector: Vector, path: PathLike) -> None:
    """Write a vector to a self-describing `.safetensors` file, atomically.

    Equal vectors give equal bytes. The file appears under its name only when it is complete; a
    file of that name is replaced.
    """
    with about(path):
        tensors = named_tensors(vector)
        for name, tensor in tensors.items():
            check_storable(name, tensor)
        infos = {name: describe_tensor(t, checksum(t)) for name, t in tensors.items()}
        header = header_of(vector, tensors, infos)
        write_file(path, header, tensors)


def header_of(
    vector: Vector, tensors: Mapping[str, Tensor], infos: Mapping[str, object], *, size: int = 0
) -> bytes:
    """Return the start of a vector's file, after checking that it can be read back."""
    text = strict_json.dumps(describe(vector, infos))
    read_document(strict_json.loads(text))
    return header_bytes({KEY: text, DIGEST_KEY: digest_of(text)}, tensors, size=size)


def load(path: PathLike) -> Vector:
    """Read a vector from a file that `save` wrote; all is validated before the vector is built."""
    with about(path), opened(path) as (file, size):
        document, _, container = _header(file, size)
        tensors = {}
        for name, info in document.tensors.items():
            tensors[name], digest = read_tensor(file, container.entries[name])
            if digest != info.sha256:
                raise damaged(f"bytes of {name!r} with SHA-256 {digest}", info.sha256)
            check_storable(name, tensors[name])
        return build_vector(document, tensors)


def inspect_header(path: PathLike) -> dict[str, object]:
    """Return the description in a vector file's header, without reading the tensors.

    Args:
        path: The file.

    Returns:
        The JSON document that `vectors/README.md` describes, validated.

    Raises:
        VectorFileError: As `load`, but for the values of the tensors, which are not looked at.
    """
    with about(path), opened(path) as (file, size):
        return _header(file, size)[1]


def _header(file: BinaryIO, size: int) -> tuple[Document, dict[str, object], Container]:
    container = read_container(file, size, key=KEY)
    text = container.metadata[KEY]
    value = fields.mapping("the description", strict_json.loads(text))
    check_version(value)
    if container.metadata.get(DIGEST_KEY) != digest_of(text):
        raise damaged(
            f"a description with SHA-256 {digest_of(text)}", f"the {DIGEST_KEY} beside it"
        )
    document = read_document(value)
    described = {name: (info.dtype, info.shape) for name, info in document.tensors.items()}
    contained = {name: (entry.dtype, entry.shape) for name, entry in container.entries.items()}
    if described != contained:
        differing = sorted(set(described.items()) ^ set(contained.items()))[:4]
        raise damaged(f"tensors that differ from their description: {differing}", "the same")
    return document, value, container


def digest_of(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def check_storable(name: str, tensor: Tensor) -> None:
    """Refuse a tensor that a file cannot hold."""
    if tensor.dtype not in DTYPE_NAMES or tensor.numel() == 0:
        found = f"{name!r} of dtype {tensor.dtype} and shape {tuple(tensor.shape)}"
        expected = "float16, bfloat16, float32 or float64, and at least one element"
        raise VectorFileError(
            "a tensor cannot be stored", found=found, expected=expected, do="convert it first"
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


@contextlib.contextmanager
def about(path: PathLike) -> Iterator[None]:
    """Turn every error below into a `VectorFileError` that begins with the file's name."""
    name = path_of(path, VectorFileError)
    try:
        with accessing(name, VectorFileError):
            yield
    except SteerError as error:
        what = error.what if error.what.startswith(f"{name}: ") else f"{name}: {error.what}"
        raise VectorFileError(
            what, found=error.found, expected=error.expected, do=error.do
        ) from error


@contextlib.contextmanager
def opened(path: PathLike) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file to read it; give it with its length in bytes."""
    with readable(path, VectorFileError, kind="a .safetensors file") as file:
        yield file, file_size(file)


def write_file(path: PathLike, header: bytes, tensors: Mapping[str, Tensor]) -> None:
    """Write a file whole or not at all."""
    with AtomicFile(path, VectorFileError) as out:
        out.write(header)
        for tensor in tensors.values():
            out.write(tensor_bytes(tensor))
        out.commit()


def damaged(found: str, expected: str) -> VectorFileError:
    """Return the error for a file whose parts disagree."""
    return VectorFileError(
        "the file is damaged",
        found=found,
        expected=expected,
        do="get the file again; to change a description, load the file and save another",
    )
