"""Knobs that leave one another alone: the dual basis of several vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import number
from steer.algebra._provenance import combined, recorded
from steer.algebra._site import Site
from steer.algebra._term import Term, add, inner, scale
from steer.algebra._vector import Vector
from steer.errors import AlgebraError


def disentangle(vectors: Mapping[str, Vector], *, least: float = 0.01) -> dict[str, Vector]:
    """Return vectors without what they share: each is orthogonal to the others, site by site.

    u_i = G_ii Σ_j (G⁻¹)_ij v_j, with G_ij = ⟨v_i, v_j⟩ at the site. So ⟨u_i, v_j⟩ = 0 for every
    other j, and ⟨u_i, v_i⟩ = ⟨v_i, v_i⟩. If v_j is the gradient of a margin
    (`preference_gradient`), moving along u_i changes the margin of i as much as v_i would and that
    of the others not at all, to first order. For other vectors this is a heuristic.

    At one site, u_i is a combination of the vectors: it reaches nothing that some coefficients of
    the given vectors would not reach, but each domain then has a coefficient of its own. It is
    longer than v_i by 1 / √(1 − R²), R² being the share of ‖v_i‖² that the others explain.

    Args:
        vectors: At least two vectors of one model, by name.
        least: Smallest share 1 − R² of a vector that the others may leave, in (0, 1].

    Returns:
        The new vectors under the same names. Low-rank terms stay low-rank, of the summed rank.

    Raises:
        AlgebraError: Fewer than two vectors, of different models, or one that the others explain.
        ArgumentError: `least` is out of range.
    """
    number("least", least, above=0, most=1)
    if len(vectors) < 2:
        raise AlgebraError(
            "there is nothing to disentangle",
            found=f"{len(vectors)} vector(s)",
            expected="at least two, by name",
            do="pass all vectors that will be used together",
        )
    reduce(combined, (vector.provenance for vector in vectors.values()))  # of one model
    terms: dict[str, dict[Site, Term]] = {name: {} for name in vectors}
    for site in dict.fromkeys(site for vector in vectors.values() for site in vector.sites):
        there = [name for name, vector in vectors.items() if site in vector.terms]
        own = [vectors[name].terms[site] for name in there]
        factors = _dual(site, there, own, least)
        for name, row in zip(there, factors.tolist(), strict=True):
            parts = (scale(term, factor) for term, factor in zip(own, row, strict=True) if factor)
            terms[name][site] = reduce(add, parts)
    return {
        name: replace(
            vector,
            terms=terms[name],
            provenance=recorded(
                vector.provenance,
                f"disentangle(from: {', '.join(other for other in vectors if other != name)})",
            ),
            stats={},
            tuning=None,
        )
        for name, vector in vectors.items()
    }


def _dual(
    site: Site, names: Sequence[str], own: Sequence[Term], least: float
) -> Float[Tensor, "vector vector"]:
    """Return G_ii (G⁻¹)_ij, after a check that no vector is explained by the others."""
    gram = torch.tensor([[inner(a, b) for b in own] for a in own], dtype=torch.float64)
    lengths = gram.diagonal().clamp(min=0).sqrt()
    live = lengths > 0  # a vector that is zero here changes nothing, and stays zero
    if not bool(live.any()):
        return torch.eye(len(own), dtype=torch.float64)
    cosines = gram[live][:, live] / lengths[live].outer(lengths[live])
    values, basis = torch.linalg.eigh(cosines)
    inverse = (basis / values.clamp(min=1e-12)) @ basis.T
    left = 1 / inverse.diagonal()
    if float(left.min()) < least:
        alive = [name for name, there in zip(names, live.tolist(), strict=True) if there]
        raise AlgebraError(
            "a vector is not independent of the others",
            found=f"{alive[int(left.argmin())]!r} keeps {float(left.min()):.2g} of its square at "
            f"{site}",
            expected=f"at least {least:g} of it outside the span of the others",
            do="leave one of the vectors out, take other sites, or allow less with least=…",
        )
    factors = torch.eye(len(own), dtype=torch.float64)
    at = live.nonzero().flatten()
    factors[at[:, None], at] = inverse * lengths[live, None] / lengths[live]
    return factors
