"""A folder of vector files as domains, each file's name the name of its domain."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from steer.algebra import Part, Residual, Vector, as_composition
from steer.errors import ArgumentError, CapabilityError
from steer.store import folder_of

_SUFFIX = ".safetensors"


def read_folder(folder: str) -> dict[str, Part]:
    """Return the vectors of a folder by domain, with the operator and the scope of each.

    Raises:
        ArgumentError: There is no such folder.
        CapabilityError: A vector cannot be served.
    """
    place = folder_of(folder, ArgumentError)
    if not place.is_dir():
        raise ArgumentError(
            "the folder of vectors does not exist",
            found=folder,
            expected="a folder of vector files",
            do="correct `vectors` in additional_config",
        )
    files = {path.name.removesuffix(_SUFFIX): path for path in sorted(place.glob(f"*{_SUFFIX}"))}
    return {name: read_part(name, path) for name, path in files.items()}


def read_part(name: str, path: Path) -> Part:
    """Return one vector for a server, or refuse it."""
    vector = Vector.load(path)
    part = as_composition({name: vector}).parts[name]
    if part.operator != "add":
        raise _refused(name, f"a vector for the operator {part.operator!r}")
    if part.scope.marker is not None:
        raise _refused(name, f"a vector for the scope {str(part.scope)!r}")
    if not vector.layers or vector.layers[0] < 0:
        raise _refused(name, "no direction in the residual stream after a block")
    if len(vector.layers) != len(vector.sites):
        raise _refused(name, "a vector that also changes weights")
    return part


def rows(vector: Vector) -> dict[int, Tensor]:
    """Return the directions of a vector by layer, in float32."""
    return {
        site.layer: vector.direction(site.layer).float()
        for site in vector.sites
        if isinstance(site, Residual)
    }


def digest(directions: Mapping[int, Tensor]) -> str:
    """Return the SHA-256 of directions: two vectors with the same one do the same."""
    found = sha256()
    for layer in sorted(directions):
        values = directions[layer].to(torch.float32).cpu().contiguous().numpy().tobytes()
        found.update(layer.to_bytes(4, "little") + values)
    return found.hexdigest()


def _refused(name: str, found: str) -> CapabilityError:
    return CapabilityError(
        f"the vector {name!r} cannot be served",
        found=found,
        expected="directions added to the residual stream after blocks",
        do="merge weight vectors with `steer merge`; leave other files out of the folder",
    )
