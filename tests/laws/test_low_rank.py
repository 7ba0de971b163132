"""Low-rank terms are the matrices that their factors multiply to."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steer.algebra import Dense, Direction, LowRank, Residual, Vector, Weight
from steer.algebra import _term as terms_
from steer.errors import ArgumentError
from tests.laws.spaces import NUMBERS, SEEDS, normal

W = Weight("w")


@st.composite
def low_ranks(draw, out=5, inner=4):
    seed, rank = draw(SEEDS), draw(st.integers(1, 7))
    return LowRank(normal(seed, out, rank), normal(seed + 1, rank, inner))


def as_dense(term):
    return Dense(terms_.dense(term))


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@given(low_ranks(), low_ranks(), NUMBERS)
def test_sums_multiples_and_inner_products_equal_the_dense_ones(a, b, factor):
    A, B = terms_.dense(a), terms_.dense(b)
    close(terms_.dense(terms_.add(a, b)), A + B)
    close(terms_.dense(terms_.scale(a, factor)), factor * A)
    for left in (a, as_dense(a)):
        for right in (b, as_dense(b)):
            assert terms_.inner(left, right) == pytest.approx(float((A * B).sum()), abs=1e-9)
            close(terms_.dense(terms_.add(left, right)), A + B)


@given(low_ranks(), low_ranks())
def test_a_sum_joins_the_factors_bit_for_bit(a, b):
    total = terms_.add(a, b)
    assert isinstance(total, LowRank)
    assert total.rank == a.rank + b.rank
    assert torch.equal(total.B, torch.cat([a.B, b.B], dim=1))
    assert torch.equal(total.A, torch.cat([a.A, b.A], dim=0))


def test_a_sum_with_a_dense_term_is_dense():
    a, b = LowRank(normal(0, 3, 1), normal(1, 1, 3)), Dense(normal(2, 3, 3))
    assert isinstance(terms_.add(a, b), Dense)
    assert isinstance(terms_.add(b, a), Dense)


def test_an_inner_product_never_forms_the_matrix():
    """A matrix of these sizes would hold 10^12 numbers."""
    n = 1_000_000
    a = LowRank(torch.ones(n, 1), torch.ones(1, n))
    assert terms_.inner(a, a) == 1e12


@given(low_ranks(), st.integers(1, 6), st.booleans())
def test_truncation_is_the_best_approximation(a, rank, densely):
    matrix = terms_.dense(a)
    short = terms_.truncate(as_dense(a) if densely else a, rank)
    assert isinstance(short, LowRank)
    assert short.rank <= rank
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    assert float((matrix - terms_.dense(short)).norm()) == pytest.approx(
        float(S[rank:].norm()), abs=1e-9 * float(S[0])
    )
    gap = S[rank - 1] - S[rank] if rank < len(S) else S[0]
    if gap > 1e-3 * S[0]:  # else the optimum is not unique
        optimum = (U[:, :rank] * S[:rank]) @ Vh[:rank]
        torch.testing.assert_close(terms_.dense(short), optimum, rtol=0, atol=1e-8 * float(S[0]))


@given(low_ranks(), st.integers(1, 4))
def test_the_factors_share_the_singular_values(a, rank):
    short = terms_.truncate(a, rank)
    assert isinstance(short, LowRank)
    torch.testing.assert_close(short.B.T @ short.B, short.A @ short.A.T, rtol=1e-7, atol=1e-7)


def test_truncation_keeps_the_dtype_and_what_is_no_matrix():
    u = Vector({W: Dense(normal(0, 4, 4).half()), Weight("bias"): Dense(normal(1, 4))})
    u += Vector({Residual(0): Direction(normal(2, 3))})
    short = u.truncate(2)
    assert short.terms[W].B.dtype == torch.float16
    assert short.terms[Weight("bias")] is u.terms[Weight("bias")]
    assert short.terms[Residual(0)] is u.terms[Residual(0)]


@pytest.mark.parametrize("rank", [0, -1, 1.0, True])
def test_a_rank_is_a_positive_integer(rank):
    with pytest.raises(ArgumentError, match="rank must be an integer"):
        Vector({W: Dense(normal(0, 2, 2))}).truncate(rank)
