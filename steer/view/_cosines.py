"""Cosines between vectors: domains, methods, seeds, or whatever they are named for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Residual, Site, Vector, inner
from steer.errors import AlgebraError
from steer.show import Chart, Curves, Row
from steer.view._base import View
from steer.view._charts import LAYER, matrix, zipped
from steer.view._checks import check_kind

_LINES = 12  # pairs of vectors that are drawn by layer


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Cosines(View):
    """Cosines between named vectors, by the sites that all of them have.

    Args:
        names: Names of the vectors.
        residual: `[domain domain]` over all shared layers together; None if there is none.
        weight: `[domain domain]` over all shared weight sites together; None if there is none.
        by_layer: `[layer domain domain]` at each shared layer. NaN where a vector is zero.
        layers: The shared layers.
    """

    names: tuple[str, ...]
    residual: Float[Tensor, "domain domain"] | None
    weight: Float[Tensor, "domain domain"] | None
    by_layer: Float[Tensor, "layer domain domain"]
    layers: tuple[int, ...]

    @property
    def rows(self) -> list[Row]:
        """One row per pair of vectors and part: `residual`, `weight`, `layer 3`, …."""
        parts: dict[str, Tensor | None] = {"residual": self.residual, "weight": self.weight}
        if len(self.layers) > 1:
            parts |= {f"layer {k}": m for k, m in zip(self.layers, self.by_layer, strict=True)}
        return [
            {
                "part": part,
                "first": self.names[i],
                "second": self.names[j],
                "cosine": float(m[i, j]),
            }
            for part, m in parts.items()
            if m is not None
            for i, j in combinations(range(len(self.names)), 2)
        ]

    @property
    def title(self) -> str:
        """The number of vectors."""
        return f"Cosines between {len(self.names)} vectors"

    @property
    def panels(self) -> Mapping[str, Chart]:
        """A matrix for each part; for few vectors of several layers, a line for each two."""
        whole = {
            _listed(self.layers): ("residual", self.residual),
            "weight sites": ("weight", self.weight),
        }
        found: dict[str, Chart] = {
            part: matrix("cosine", m, self.names, self.names, (-1.0, 1.0), title=title)
            for title, (part, m) in whole.items()
            if m is not None
        }
        pairs = list(combinations(range(len(self.names)), 2))
        if len(self.layers) > 1 and len(pairs) <= _LINES:
            series = {
                f"{self.names[i]} – {self.names[j]}": zipped(self.layers, self.by_layer[:, i, j])
                for i, j in pairs
            }
            found["layers"] = Curves(
                "cosine", LAYER, series, level=0.0, limits=(-1.05, 1.05), whole=True
            )
        return found


def cosines(vectors: Mapping[str, Vector]) -> Cosines:
    """Return the cosines between vectors at the sites that all of them have.

    cos(u, w) = Σ ⟨u_s, w_s⟩ / √(Σ ‖u_s‖² Σ ‖w_s‖²) over shared sites s, for residual and for weight
    sites apart; for low-rank weight terms through their factors. Over several layers together the
    longest ones count most: see the cosines by layer.

    Args:
        vectors: Vectors by name, at least two: of several domains, methods or seeds.

    Returns:
        The cosines.

    Raises:
        AlgebraError: Fewer than two vectors, no site that all share, or sites of unequal shape.
        ArgumentError: `vectors` is not a mapping from names to vectors.
    """
    check_kind("vectors", vectors, Mapping)
    for name, vector in vectors.items():
        check_kind(f"the name {name!r}", name, str)
        check_kind(f"what is named {name!r}", vector, Vector)
    every = [set(v.sites) for v in vectors.values()]
    shared = set.intersection(*every) if every else set()
    ordered = [s for s in next(iter(vectors.values())).sites if s in shared] if vectors else []
    if len(vectors) < 2 or not ordered:
        raise AlgebraError(
            "there is nothing to compare",
            found=f"{len(vectors)} vectors with {len(ordered)} shared sites",
            expected="at least two vectors that share a layer or a weight",
            do="extract them at the same layers, or compare layers with layer_cosines",
        )
    residual = [s for s in ordered if isinstance(s, Residual)]
    weight = [s for s in ordered if not isinstance(s, Residual)]
    grams = {site: _gram(list(vectors.values()), site) for site in ordered}
    by_layer = [_normalised(grams[s]) for s in residual]

    def together(sites: Sequence[Site]) -> Tensor | None:
        return _normalised(sum((grams[s] for s in sites[1:]), grams[sites[0]])) if sites else None

    empty = torch.zeros(0, len(vectors), len(vectors), dtype=torch.float64)
    return Cosines(
        tuple(vectors),
        together(residual),
        together(weight),
        torch.stack(by_layer) if by_layer else empty,
        tuple(s.layer for s in residual),
    )


def _gram(vectors: Sequence[Vector], site: Site) -> Float[Tensor, "domain domain"]:
    gram = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for i, u in enumerate(vectors):
        for j in range(i, len(vectors)):
            gram[i, j] = gram[j, i] = inner(u.terms[site], vectors[j].terms[site])
    return gram


def _normalised(gram: Tensor) -> Tensor:
    lengths = gram.diagonal().clamp_min(0.0).sqrt()  # of 0, whose cosines are NaN
    return (gram / lengths[:, None] / lengths[None]).clamp(-1.0, 1.0)


def _listed(layers: Sequence[int]) -> str:
    return f"layer {layers[0]}" if len(layers) == 1 else f"{len(layers)} layers together"
