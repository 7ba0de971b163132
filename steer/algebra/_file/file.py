"""Writing and reading vector files."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from torch import Tensor

from steer.algebra._file.layout import FORMAT_VERSION, KEY, named_tensors
from steer.algebra._vector import Vector
from steer.store import PathLike
from steer.store._container import Container
from steer.store._described import (
    about,
    check_described,
    check_storable,
    describe_tensor,
    described_header,
    opened,
    read_description,
    read_tensors,
    write_tensors,
)

if TYPE_CHECKING:
    from steer.algebra._file.document import Document


def save(vector: Vector, path: PathLike) -> None:
    """Write a vector to a `.safetensors` file, atomically; equal vectors give equal bytes."""
    with about(path):
        tensors = named_tensors(vector)
        for name, tensor in tensors.items():
            check_storable(name, tensor)
        infos = {name: describe_tensor(tensor) for name, tensor in tensors.items()}
        write_tensors(path, header_of(vector, tensors, infos), tensors)


def header_of(
    vector: Vector, tensors: Mapping[str, Tensor], infos: Mapping[str, object], *, size: int = 0
) -> bytes:
    """Return the start of a vector's file, filled with spaces up to `size` bytes.

    The tensors stand in the order in which they are written, and may be on the meta device.
    """
    from steer.algebra._file.document import described

    return described_header(KEY, described(vector, infos), tensors, size=size)


def load(path: PathLike) -> Vector:
    """Read a vector from a file that `save` wrote; everything is validated before it is built."""
    from steer.algebra._file.document import build_vector

    with about(path), opened(path) as (file, size):
        document, _, container = _header(file, size)
        return build_vector(document, read_tensors(file, container, document.tensors))


def inspect_header(path: PathLike) -> dict[str, Any]:
    """Return the description in a vector file's header, without reading the tensors.

    Args:
        path: The file.

    Returns:
        The JSON document that `vectors/README.md` describes, validated.

    Raises:
        VectorFileError: As `Vector.load`, except for the values of the tensors.
    """
    with about(path), opened(path) as (file, size):
        return _header(file, size)[1]


def _header(file: BinaryIO, size: int) -> "tuple[Document, dict[str, Any], Container]":
    from steer.algebra._file.document import read_document

    value, container = read_description(file, size, KEY, FORMAT_VERSION)
    document = read_document(value)
    check_described(container, document.tensors)
    return document, value, container
