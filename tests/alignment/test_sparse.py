"""Sparse forms: what is kept, what is elected, and what a random choice may depend on."""

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steer.algebra import Dense, LowRank, ModelInfo, Provenance, Term, Vector, Weight
from steer.algebra._term import dense
from steer.alignment import bidirectional, dare, magnitude, ties
from steer.errors import AlgebraError, AlignmentError, ArgumentError

NUMBERS = st.floats(-2.0, 2.0, width=16)


def of(**tensors: Sequence[object]) -> Vector:
    """A weight vector of these arrays."""
    return Vector(
        {
            Weight(name): Dense(torch.tensor(value, dtype=torch.float32))
            for name, value in tensors.items()
        }
    )


def flat(vector: Vector) -> dict[str, list[float]]:
    """Every entry by the parameter's name."""
    return {
        site.name: dense(term).flatten().tolist()
        for site, term in vector.terms.items()
        if isinstance(site, Weight)
    }


@given(
    st.lists(st.lists(NUMBERS, min_size=1, max_size=8), min_size=1, max_size=4),
    st.floats(0.01, 1.0),
)
def test_magnitude_keeps_the_largest_of_all_parameters(
    values: list[list[float]], density: float
) -> None:
    vector = of(**{f"w{i}": value for i, value in enumerate(values)})
    every = sorted((abs(x) for value in values for x in value), reverse=True)
    smallest = every[max(1, round(density * len(every))) - 1]
    kept = flat(magnitude(vector, density))
    for name, value in flat(vector).items():
        wanted = [x if abs(x) >= smallest else 0.0 for x in value]
        if any(wanted) or not any(every):
            assert kept[name] == wanted
        else:
            assert name not in kept


def test_magnitude_at_full_density_is_the_vector_itself() -> None:
    vector = of(a=[1.0, 0.0, -3.0], b=[[0.25]])
    assert flat(magnitude(vector, 1.0)) == flat(vector)


def test_of_nothing_but_zeros_they_stay_dense() -> None:
    zeros = Vector({Weight("a"): LowRank(torch.zeros(3, 1), torch.zeros(1, 2))})
    kept = magnitude(zeros, 0.5)
    assert flat(kept) == {"a": [0.0] * 6}
    assert all(isinstance(term, Dense) for term in kept.terms.values())


def test_entries_of_one_size_are_kept_together() -> None:
    """No parameter comes first because of its name."""
    kept = magnitude(of(a=[1.0, 0.5], b=[1.0, 0.5], c=[1.0, 0.5]), 0.2)
    assert flat(kept) == {"a": [1.0, 0.0], "b": [1.0, 0.0], "c": [1.0, 0.0]}


def test_many_entries_are_ranked_without_being_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steer.alignment._forms._BLOCK", 7)
    generator = torch.Generator().manual_seed(0)
    terms: dict[Weight, Term] = {
        Weight("a"): Dense(torch.randn(50, 3, generator=generator)),
        Weight("b"): LowRank(
            torch.randn(20, 2, generator=generator), torch.randn(2, 10, generator=generator)
        ),
    }
    entries = torch.cat([dense(term).flatten() for term in terms.values()]).abs()
    kept = magnitude(Vector(dict(terms)), 0.1)
    count = sum(int(dense(term).count_nonzero()) for term in kept.terms.values())
    assert count == round(0.1 * len(entries))
    least = min(float(dense(t)[dense(t) != 0].abs().min()) for t in kept.terms.values())
    assert least == float(entries.sort(descending=True).values[count - 1])


def reference(vectors: list[list[float]], density: float) -> list[float]:
    """TIES as the paper words it, entry by entry."""
    trimmed = []
    for vector in vectors:
        order = sorted((abs(x) for x in vector), reverse=True)
        smallest = order[max(1, round(density * len(vector))) - 1]
        trimmed.append([x if abs(x) >= smallest else 0.0 for x in vector])
    merged = []
    for entries in zip(*trimmed, strict=True):
        total = sum(entries)
        agreeing = [x for x in entries if x * total > 0]
        merged.append(sum(agreeing) / len(agreeing) if agreeing else 0.0)
    return merged


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(-8, 8), min_size=6, max_size=6), min_size=n, max_size=n
        )
    ),
    st.sampled_from([0.2, 0.5, 1.0]),
)
def test_ties_is_the_paper_s(vectors: list[list[int]], density: float) -> None:
    wanted = reference([[float(x) for x in v] for v in vectors], density)
    made = [of(w=v) for v in vectors]
    if not any(wanted):
        with pytest.raises(AlignmentError, match="cancel"):
            ties(made, density)
        return
    assert flat(ties(made, density))["w"] == pytest.approx(wanted)


def test_ties_of_vectors_at_different_sites() -> None:
    merged = ties([of(a=[2.0], b=[1.0]), of(a=[4.0])], 1.0)
    assert flat(merged) == {"a": [3.0], "b": [1.0]}
    assert merged.provenance.method == "ties"
    assert dict(merged.provenance.arguments) == {"density": 1.0, "vectors": 2}


def test_ties_of_one_vector_is_its_trimming() -> None:
    vector = of(a=[3.0, -1.0, 0.5], b=[0.1, -4.0])
    assert flat(ties([vector], 0.4)) == flat(magnitude(vector, 0.4))


def test_dare_keeps_the_mean_and_the_share() -> None:
    vector = of(w=[1.0] * 20_000)
    dropped = torch.tensor(flat(dare(vector, 0.9, seed=3))["w"])
    assert set(dropped.tolist()) == {0.0, float(torch.tensor(1.0) / (1 - 0.9))}
    share = float(dropped.count_nonzero()) / len(dropped)
    assert share == pytest.approx(0.1, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.1)


def test_dare_depends_on_the_seed_and_the_name_alone() -> None:
    one, two = of(a=[1.0] * 64, b=[1.0] * 64), of(b=[1.0] * 64)
    first = flat(dare(one, 0.5, seed=1))
    assert flat(dare(one, 0.5, seed=1)) == first
    assert flat(dare(two, 0.5, seed=1))["b"] == first["b"] != first["a"]
    assert flat(dare(one, 0.5, seed=2))["a"] != first["a"]
    assert flat(dare(one, 0.0, seed=1)) == flat(one)


def test_the_global_random_state_stays() -> None:
    before = torch.random.get_rng_state()
    dare(of(a=[1.0] * 8), 0.5, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_low_rank_terms_become_dense() -> None:
    term = LowRank(torch.tensor([[2.0], [1.0]]), torch.tensor([[3.0, -1.0]]))
    vector = Vector({Weight("w"): term})
    for made in (magnitude(vector, 0.25), ties([vector], 0.25)):
        assert flat(made) == {"w": [6.0, 0.0, 0.0, 0.0]}
    assert flat(dare(vector, 0.0, seed=0)) == {"w": [6.0, -2.0, 3.0, -1.0]}


def test_forms_are_recorded_after_what_was_recorded_before() -> None:
    vector = Vector(of(a=[1.0, 2.0]).terms, Provenance("alignment_vector", {"base": "x"}, "legal"))
    made = dare(magnitude(vector, 0.5), 0.25, seed=7).provenance
    assert (made.method, made.domain, made.arguments["base"]) == ("alignment_vector", "legal", "x")
    assert made.arguments["forms"] == ("magnitude(density=0.5)", "dare(drop=0.25, seed=7)")


def test_bidirectional_is_the_difference_of_both_models() -> None:
    base, towards, away = (
        torch.tensor([1.0, 2.0]),
        torch.tensor([1.5, 2.0]),
        torch.tensor([0.0, 5.0]),
    )
    made = bidirectional(of(w=(towards - base).tolist()), of(w=(away - base).tolist()))
    assert flat(made) == {"w": (towards - away).tolist()}
    assert made.provenance.method == "bidirectional"


def test_bidirectional_joins_factors_exactly() -> None:
    left, right = (LowRank(torch.randn(4, 2), torch.randn(2, 3)) for _ in range(2))
    made = bidirectional(Vector({Weight("w"): left}), Vector({Weight("w"): right})).terms[
        Weight("w")
    ]
    assert isinstance(made, LowRank)
    assert made.rank == 4
    assert torch.equal(made.A, torch.cat([left.A, right.A]))


MODELS = [
    Vector(
        {Weight("w"): Dense(torch.ones(2))}, Provenance(model=ModelInfo(n, None, 1, 2, n, "", ""))
    )
    for n in ("one", "two")
]


@pytest.mark.parametrize("merge", [ties, lambda vectors: bidirectional(*vectors)])
def test_vectors_of_different_models_are_not_merged(
    merge: Callable[[list[Vector]], Vector],
) -> None:
    with pytest.raises(AlgebraError, match="different models"):
        merge(MODELS)


RESIDUAL = Vector.of({1: torch.ones(3)})


@pytest.mark.parametrize(
    "make",
    [
        lambda: magnitude(RESIDUAL, 0.5),
        lambda: ties([RESIDUAL], 0.5),
        lambda: dare(RESIDUAL, 0.5, seed=0),
        lambda: bidirectional(RESIDUAL, RESIDUAL),
    ],
)
def test_residual_vectors_have_no_such_form(make: Callable[[], Vector]) -> None:
    with pytest.raises(AlignmentError, match="is a form of weight vectors"):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda v: magnitude(v, 0.0),
        lambda v: magnitude(v, 1.1),
        lambda v: ties([v], float("nan")),
        lambda v: dare(v, 1.0, seed=0),
        lambda v: dare(v, -0.1, seed=0),
    ],
)
def test_a_share_that_is_none_is_refused(make: Callable[[Vector], Vector]) -> None:
    with pytest.raises(ArgumentError, match="must be a finite number"):
        make(of(a=[1.0]))


def test_ties_of_nothing_is_refused() -> None:
    with pytest.raises(AlignmentError, match="nothing to merge"):
        ties([], 0.5)
