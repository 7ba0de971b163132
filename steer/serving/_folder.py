"""A folder of vector files as domains, each file's name the name of its domain."""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from steer.algebra import EMBED, Part, Residual, Vector, Weight, as_composition, tensors
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
    if EMBED in vector.sites:
        raise _refused(name, "a vector for the embedding's output")
    return part


def residuals(parts: Mapping[str, Part]) -> dict[str, Part]:
    """Return the directions in the residual stream, of the vectors that have some.

    Their order is that of the slots.
    """
    return {
        name: replace(part, vector=part.vector.residual)
        for name, part in parts.items()
        if part.vector.layers
    }


def weights(parts: Mapping[str, Part]) -> dict[str, Vector]:
    """Return the changes of weights, of the vectors that have some."""
    return {
        name: part.vector.weight
        for name, part in parts.items()
        if any(isinstance(site, Weight) for site in part.vector.sites)
    }


def rows(vector: Vector) -> dict[int, Tensor]:
    """Return the directions of a vector by layer, in float32."""
    return {
        site.layer: vector.direction(site.layer).float()
        for site in vector.sites
        if isinstance(site, Residual)
    }


def digest(vector: Vector) -> str:
    """Return the SHA-256 of a vector's values: two with the same one do the same."""
    found = sha256()
    for site in vector.sites:
        for name, tensor in tensors(vector.terms[site]).items():
            values = tensor.to(torch.float32).cpu().contiguous().numpy().tobytes()
            found.update(f"{site} {name} {tuple(tensor.shape)}".encode() + values)
    return found.hexdigest()


def _refused(name: str, found: str) -> CapabilityError:
    return CapabilityError(
        f"the vector {name!r} cannot be served",
        found=found,
        expected="directions added after blocks, or low-rank changes of weights",
        do="leave the file out of the folder, or use transformers",
    )
