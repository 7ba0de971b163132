"""Cosines between vectors: domains, methods, seeds, or whatever they are named for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Residual, Term, Vector, inner
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
    given = [vector.terms for vector in vectors.values()]
    shared = [site for site in (given[0] if given else ()) if all(site in v for v in given)]
    if len(given) < 2 or not shared:
        raise AlgebraError(
            "there is nothing to compare",
            found=f"{len(vectors)} vectors with {len(shared)} shared sites",
            expected="at least two vectors that share a layer or a weight",
            do="extract them at the same layers, or compare layers with layer_cosines",
        )
    grams = {site: _gram([terms[site] for terms in given]) for site in shared}
    residual = {s.layer: gram for s, gram in grams.items() if isinstance(s, Residual)}
    weight = [gram for s, gram in grams.items() if not isinstance(s, Residual)]
    by_layer = torch.zeros(len(residual), len(given), len(given), dtype=torch.float64)
    for row, gram in zip(by_layer, residual.values(), strict=True):
        row.copy_(_normalised([gram]))
    whole = _normalised([*residual.values()]) if residual else None
    weights = _normalised(weight) if weight else None
    return Cosines(tuple(vectors), whole, weights, by_layer, tuple(residual))


def _gram(terms: Sequence[Term]) -> Float[Tensor, "domain domain"]:
    gram = torch.zeros(len(terms), len(terms), dtype=torch.float64)
    for i, j in combinations_with_replacement(range(len(terms)), 2):
        gram[i, j] = gram[j, i] = inner(terms[i], terms[j])
    return gram


def _normalised(grams: Sequence[Tensor]) -> Float[Tensor, "domain domain"]:
    """Return the cosines over some sites together; NaN for a zero vector."""
    gram = torch.stack([*grams]).sum(dim=0)
    lengths = gram.diagonal().clamp_min(0.0).sqrt()
    return (gram / lengths[:, None] / lengths[None]).clamp(-1.0, 1.0)


def _listed(layers: Sequence[int]) -> str:
    return f"layer {layers[0]}" if len(layers) == 1 else f"{len(layers)} layers together"
