"""The names of the format: metadata keys, kinds of terms, and how tensors are called."""

import math
from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor

from steer.algebra._site import Site
from steer.algebra._term import Dense, Direction, LowRank, Term, tensors
from steer.algebra._vector import Vector

FORMAT_VERSION = 1
KEY = "steer.vector"
RECORDING_KEY = "steer.activations"
DIGEST_KEY = "steer.vector.sha256"
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
