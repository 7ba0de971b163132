"""The low-rank form is the best there is, and says truly what it keeps."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steer.algebra import Dense, Direction, LowRank, Residual, Term, Vector, Weight
from steer.algebra._term import dense
from steer.alignment import alignment_vector, low_rank
from steer.errors import ArgumentError
from tests.alignment.models import pair


def matrix(rows: int, columns: int, seed: int = 0, rank: int | None = None) -> torch.Tensor:
    """A random matrix in float64, of a rank if one is given."""
    generator = torch.Generator().manual_seed(seed)
    if rank is None:
        return torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return matrix(rows, rank, seed) @ matrix(rank, columns, seed + 1)


def of(term: Term) -> Vector:
    return Vector({Weight("w"): term})


SIZES = st.integers(1, 12)


@given(SIZES, SIZES, st.integers(1, 12), st.integers(0, 99))
def test_the_error_is_that_of_the_truncated_decomposition(
    rows: int, columns: int, rank: int, seed: int
) -> None:
    W = matrix(rows, columns, seed)
    reduced, table = low_rank(of(Dense(W)), rank=rank)
    term = reduced.terms[Weight("w")]
    assert isinstance(term, LowRank)
    S = torch.linalg.svdvals(W)
    assert term.rank == min(rank, rows, columns)
    best = float(S[rank:].square().sum().sqrt())
    assert float((W - dense(term)).norm()) == pytest.approx(best, abs=1e-7 * float(S[0]))
    (row,) = table.rows
    assert row.norm == pytest.approx(float(W.norm()))
    assert row.error == pytest.approx(best / float(W.norm()), abs=1e-7)
    assert row.energy == pytest.approx(float(S[:rank].square().sum() / S.square().sum()))


@given(SIZES, SIZES, st.floats(0.01, 1.0), st.integers(0, 99))
def test_the_rank_of_an_energy_is_the_least_that_keeps_it(
    rows: int, columns: int, energy: float, seed: int
) -> None:
    W = matrix(rows, columns, seed)
    reduced, table = low_rank(of(Dense(W)), energy=energy)
    term = reduced.terms[Weight("w")]
    assert isinstance(term, LowRank)
    share = torch.linalg.svdvals(W).square().cumsum(0) / W.square().sum()
    assert float(share[term.rank - 1]) >= energy - 1e-9
    assert term.rank == 1 or float(share[term.rank - 2]) < energy + 1e-9
    assert table.rows[0].energy >= energy - 1e-9


@given(SIZES, SIZES, st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_factors_are_reduced_as_their_product_is(
    rows: int, columns: int, inside: int, rank: int, seed: int
) -> None:
    term = LowRank(matrix(rows, inside, seed), matrix(inside, columns, seed + 1))
    by_factors, table = low_rank(of(term), rank=rank)
    by_product, wanted = low_rank(of(Dense(dense(term))), rank=rank)
    left, right = dense(by_factors.terms[Weight("w")]), dense(by_product.terms[Weight("w")])
    assert torch.allclose(left, right, atol=1e-6 * float(dense(term).norm()))
    assert table.rows[0].error == pytest.approx(wanted.rows[0].error, abs=1e-6)
    assert table.rows[0].energy == pytest.approx(wanted.rows[0].energy)


def test_it_agrees_with_the_truncation_of_the_algebra() -> None:
    vector = of(Dense(matrix(30, 20)))
    reduced, _ = low_rank(vector, rank=5)
    for site, term in vector.truncate(5).terms.items():
        assert torch.allclose(dense(reduced.terms[site]), dense(term), atol=1e-12, rtol=0)


def test_singular_values_are_shared_between_the_factors() -> None:
    """So that neither factor overflows or vanishes in half precision."""
    reduced, _ = low_rank(of(Dense(1e-6 * matrix(30, 20))), rank=5)
    term = reduced.terms[Weight("w")]
    assert isinstance(term, LowRank)
    assert torch.allclose(term.B.norm(dim=0), term.A.norm(dim=1), rtol=1e-9)


@pytest.mark.parametrize("shape", [(40, 25), (25, 40)])
def test_a_matrix_of_low_rank_keeps_its_rank_and_all_of_it(shape: tuple[int, int]) -> None:
    W = matrix(*shape, rank=3)
    reduced, table = low_rank(of(Dense(W.float())), rank=16)
    term = reduced.terms[Weight("w")]
    assert isinstance(term, LowRank)
    assert torch.allclose(dense(term).double(), W, atol=1e-5)
    assert table.rows[0].error < 1e-6
    exact, _ = low_rank(of(Dense(W)), rank=16)
    assert exact.terms[Weight("w")].rank == 3  # type: ignore[union-attr]


def test_the_error_is_that_of_the_factors_as_they_are_stored() -> None:
    W = matrix(40, 25, rank=3).float()
    reduced, table = low_rank(of(Dense(W)), rank=3, dtype=torch.bfloat16)
    term = reduced.terms[Weight("w")]
    assert isinstance(term, LowRank)
    assert term.B.dtype is torch.bfloat16
    left = W.double() - term.B.double() @ term.A.double()
    assert table.rows[0].error == pytest.approx(float(left.norm() / W.double().norm()), rel=1e-6)
    assert table.rows[0].error > 1e-4
    assert table.rows[0].energy == pytest.approx(1.0)


def test_large_matrices_are_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    W = matrix(50, 7)
    whole, _ = low_rank(of(Dense(W)), rank=3)
    monkeypatch.setattr("steer.alignment._factors._BLOCK", 20)
    parts, table = low_rank(of(Dense(W)), rank=3)
    left, right = (dense(vector.terms[Weight("w")]) for vector in (whole, parts))
    assert torch.allclose(left, right, atol=1e-12, rtol=0)
    assert table.rows[0].norm == pytest.approx(float(W.norm()))


def test_what_is_no_matrix_stays_and_the_table_says_so() -> None:
    terms: dict[Any, Term] = {
        Residual(3): Direction(torch.ones(4)),
        Weight("bias"): Dense(torch.ones(4)),
        Weight("experts"): Dense(torch.ones(2, 4, 4)),
        Weight("matrix"): Dense(matrix(4, 4).float()),
        Weight("scale"): Dense(torch.tensor(2.0)),
        Weight("zero"): Dense(torch.zeros(4, 4)),
    }
    reduced, table = low_rank(Vector(terms), rank=1)
    for site, term in terms.items():
        if site != Weight("matrix"):
            assert torch.equal(dense(reduced.terms[site]), dense(term))
    assert {row.name: row.form for row in table.rows} == {
        "bias": "dense",
        "experts": "dense (3-D)",
        "matrix": "rank 1",
        "scale": "dense",
        "zero": "dense",
    }


def test_the_table_adds_up_and_prints() -> None:
    base, aligned = pair("llama")
    vector = alignment_vector(base, aligned, progress=False)
    reduced, table = low_rank(vector, rank=2)
    assert table.norm == pytest.approx(vector.norm())
    assert table.error == pytest.approx((vector - reduced).norm() / vector.norm(), rel=1e-5)
    assert table.energy == pytest.approx(1 - table.error**2, rel=1e-5)
    lines = repr(table).splitlines()
    assert lines[0] == f"{len(vector)} tensors"
    assert lines[1].split()[:2] == ["norm", f"{table.norm:.4g},"]
    assert lines[1].endswith("of ΔW in weight units")
    assert f"{table.energy:.2%} of the energy, error {table.error:.2g}" in lines[2]
    head = next(line for line in lines if line.split()[0] == "weight")
    assert head.split() == ["weight", "term", "shape", "norm", "energy", "error"]


def test_a_long_table_is_cut_to_the_largest() -> None:
    vector = Vector({Weight(f"w{i:02}"): Dense(torch.ones(2)) for i in range(60)})
    _, table = low_rank(vector, rank=1)
    lines = repr(table).splitlines()
    assert "the largest 6 of 60" in repr(table)
    assert lines[-1].split() == ["…", "54", "more", "rows"]
    assert len(lines) < 40


def test_the_record_lists_the_forms() -> None:
    reduced, _ = low_rank(of(Dense(matrix(4, 4))), energy=0.5)
    again, _ = low_rank(reduced, rank=1)
    assert again.provenance.arguments["forms"] == ("low_rank(energy=0.5)", "low_rank(rank=1)")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "pass a rank or an energy"),
        ({"rank": 2, "energy": 0.5}, "pass a rank or an energy"),
        ({"rank": 0}, "rank must be an integer"),
        ({"rank": True}, "rank must be an integer"),
        ({"energy": 0.0}, "energy must be a finite number above 0"),
        ({"energy": 1.5}, "energy must be a finite number above 0"),
    ],
)
def test_a_target_that_is_none_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        low_rank(of(Dense(matrix(4, 4))), **options)
