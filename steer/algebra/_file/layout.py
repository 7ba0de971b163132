"""The names of the format: metadata keys, kinds of terms, and names of tensors."""

import hashlib
import math
from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor

from steer.algebra._site import Site
from steer.algebra._term import Dense, Direction, LowRank, Term, tensors
from steer.algebra._vector import Vector
from steer.store._container import tensor_bytes

FORMAT_VERSION = 1
KEY = "steer.vector"
RECORDING_KEY = "steer.activations"
_BLOCK = 2**17  # elements hashed at once, as float64
CENTROIDS = "gate.centroids"
KINDS: Mapping[str, type[Term]] = MappingProxyType(
    {"direction": Direction, "low_rank": LowRank, "dense": Dense}
)
PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"direction": ("v",), "low_rank": ("B", "A"), "dense": ("W",)}
)


def kind_name(term: Term) -> str:
    """Return the name of a term's kind."""
    return next(name for name, kind in KINDS.items() if isinstance(term, kind))


def tensor_name(site: Site, part: str) -> str:
    """Return the name of one tensor of the term at a site: `resid_post.14.v`."""
    return f"{site}.{part}"


def named_tensors(vector: Vector) -> dict[str, Tensor]:
    """Return all tensors of a vector, gate included, in the order in which they are written.

    Wider elements come first, so that every tensor begins at a multiple of its element's size.
    """
    named = {
        tensor_name(site, part): tensor
        for site, term in vector.terms.items()
        for part, tensor in tensors(term).items()
    }
    if vector.gate:
        named[CENTROIDS] = vector.gate.centroids
    return dict(sorted(named.items(), key=lambda item: (-item[1].element_size(), item[0])))


def stored_norm(direction: Tensor) -> float:
    """Return ‖v‖ to nine digits, in residual units: the same on every machine."""
    return float(f"{math.hypot(*direction.double().tolist()):.9g}")


def values_checksum(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's shape and numbers, independent of its dtype."""
    digest = hashlib.sha256(repr(tuple(tensor.shape)).encode())
    rows = tensor.detach().reshape(tensor.shape or (1,))
    step = max(1, _BLOCK // max(1, math.prod(rows.shape[1:])))
    for some in rows.split(step):
        for block in some.reshape(-1).split(_BLOCK):
            digest.update(tensor_bytes(block.cpu().double()))
    return digest.hexdigest()
