"""Writing and reading vector files, whose tensors are named `resid_post.14.v`."""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from steer.algebra._site import Site
from steer.algebra._term import Dense, Direction, LowRank, Term, tensors
from steer.algebra._vector import Vector
from steer.store import PathLike
from steer.store._container import tensor_bytes
from steer.store._described import described_header, reading, save_described

FORMAT_VERSION = 1
KEY = "steer.vector"
CENTROIDS = "gate.centroids"
KINDS: Mapping[str, type[Term]] = MappingProxyType(
    {"direction": Direction, "low_rank": LowRank, "dense": Dense}
)
_BLOCK = 2**17  # elements hashed at once, as float64


def save(vector: Vector, path: PathLike) -> None:
    """Write a vector to a `.safetensors` file, atomically; equal vectors give equal bytes."""
    from steer.algebra._file.document import described

    save_described(path, KEY, named_tensors(vector), lambda infos: described(vector, infos))


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
    from steer.algebra._file.document import VectorRecord, build_vector

    with reading(path, KEY, FORMAT_VERSION, VectorRecord) as file:
        return build_vector(file.record, file.tensors())


def inspect_header(path: PathLike) -> dict[str, Any]:
    """Return the description in a vector file's header, without reading the tensors.

    Args:
        path: The file.

    Returns:
        The JSON document that `vectors/README.md` describes, validated.

    Raises:
        VectorFileError: As `Vector.load`, except for the values of the tensors.
    """
    from steer.algebra._file.document import VectorRecord

    with reading(path, KEY, FORMAT_VERSION, VectorRecord) as file:
        return file.record.model_dump()


def named_tensors(vector: Vector) -> dict[str, Tensor]:
    """Return all tensors of a vector, gate included, in the order in which they are written.

    Wider elements come first, so that every tensor begins at a multiple of its element's size.
    """
    named = {
        f"{site}.{part}": tensor
        for site, term in vector.terms.items()
        for part, tensor in tensors(term).items()
    }
    if vector.gate:
        named[CENTROIDS] = vector.gate.centroids
    return dict(sorted(named.items(), key=lambda item: (-item[1].element_size(), item[0])))


def tensor_names(site: Site, kind: str) -> list[str]:
    """Return the names of the tensors of a kind of term at a site."""
    return [f"{site}.{part}" for part in KINDS[kind].__dataclass_fields__]


def values_checksum(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's shape and numbers, independent of its dtype."""
    digest = hashlib.sha256(repr(tuple(tensor.shape)).encode())
    for block in tensor.detach().reshape(-1).split(_BLOCK):
        digest.update(tensor_bytes(block.double()))
    return digest.hexdigest()
