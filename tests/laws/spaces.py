"""Random vectors of one space, in float64, for the law tests."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from steer.algebra import Dense, Direction, LowRank, Residual, Site, Term, Vector, Weight
from steer.algebra._site import EMBED
from steer.algebra._term import dense

WIDTH = 5
SHAPES = {"lm_head.weight": (4, 6), "mlp.weight": (7, 3), "mlp.bias": (4,)}
RESIDUAL_SITES: tuple[Site, ...] = (EMBED, *(Residual(layer) for layer in range(4)))
WEIGHT_SITES: tuple[Site, ...] = tuple(Weight(name) for name in SHAPES)
SEEDS = st.integers(0, 2**31 - 1)
NUMBERS = st.floats(-1e3, 1e3, allow_nan=False)


def normal(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers in float64 that depend on the seed and the shape alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def term_at(site: Site, seed: int, rank: int) -> Term:
    """A term of the site's space; rank 0 asks for a dense one."""
    if isinstance(site, Residual):
        return Direction(normal(seed, WIDTH))
    shape = SHAPES[site.name]
    if len(shape) == 2 and rank:
        return LowRank(normal(seed, shape[0], rank), normal(seed + 1, rank, shape[1]))
    return Dense(normal(seed, *shape))


@st.composite
def vectors(draw: st.DrawFn, sites: tuple[Site, ...] = RESIDUAL_SITES) -> Vector:
    """A vector at some of the sites."""
    chosen = draw(st.lists(st.sampled_from(sites), min_size=1, unique=True))
    return Vector({site: term_at(site, draw(SEEDS), draw(st.integers(0, 3))) for site in chosen})


def either_kind() -> st.SearchStrategy[tuple[Vector, Vector, Vector]]:
    """Three vectors of one kind, residual or weight."""
    return st.one_of(
        st.tuples(*[vectors(RESIDUAL_SITES)] * 3), st.tuples(*[vectors(WEIGHT_SITES)] * 3)
    )


def both_kinds() -> st.SearchStrategy[tuple[Vector, Vector, Vector]]:
    """Three vectors that may mix residual and weight sites."""
    return st.tuples(*[vectors(RESIDUAL_SITES + WEIGHT_SITES)] * 3)


def assert_same(left: Vector, right: Vector) -> None:
    """Both are the same element: equal at every site, a missing site being zero."""
    for site in set(left.sites) | set(right.sites):
        values = [dense(v.terms[site]) if site in v.terms else None for v in (left, right)]
        first, second = (
            torch.zeros_like(other) if value is None and other is not None else value
            for value, other in zip(values, values[::-1], strict=True)
        )
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-8)
