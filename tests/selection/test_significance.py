"""The tests behind `likelihood_effect`: exact tails, and how often a useless vector passes."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import steer
from notebooks.experiments.study import residual_vectors
from steer.demo import language, load_model
from steer.measure import Preference, random_like
from steer.selection._confirm import references
from steer.selection._significance import beyond, evidence, rounding, sign_test
from tests.selection.candidates import evidence_of


def test_the_sign_test_counts_every_outcome() -> None:
    for n in range(9):
        for up in range(n + 1):
            outcomes = [bin(k).count("1") >= up for k in range(2**n)]
            assert sign_test(up, n - up) == sum(outcomes) / 2**n
    assert sign_test(2000, 0) == 0.5**1000 * 0.5**1000  # far below a float's square root


_HUNDREDTHS = st.integers(-100, 100).map(lambda k: k / 100)


@given(st.lists(_HUNDREDTHS, min_size=3, max_size=20, unique=True), st.floats(-2, 2))
def test_beyond_falls_as_the_value_rises(others: list[float], value: float) -> None:
    p = beyond(value, others)
    assert 0.0 <= p <= 1.0
    assert beyond(value + 0.5, others) <= p
    assert beyond(sum(others) / len(others), others) == pytest.approx(0.5, abs=1e-6)


def test_too_few_pairs_are_said_to_be_too_few() -> None:
    """The sign test of one setting needs seven pairs, however many settings were measured."""
    others = [[0.01 * k] * 7 for k in range(16)]
    for pairs, enough in ((6, False), (7, True)):
        found = evidence([0.0] * pairs, [9.0] * pairs, [o[:pairs] for o in others], 25)
        assert found.needed == 7
        assert found.holds() == enough
        assert ("too few pairs to tell" in str(found)) != enough


def test_equal_references_are_no_comparison() -> None:
    assert beyond(1.0, [0.0, 0.0, 0.0]) == 1.0


def test_an_effect_within_rounding_is_none() -> None:
    """A ten-millionth of a vector that works: its margins do move, all in the same direction."""
    lm = load_model()
    real = residual_vectors(lm)["financial"]
    held_out = language.pairs("financial", 60, split="validation")
    options = {
        "coefficients": (1.0,),
        "limits": steer.Limits(kl=50.0),
        "neutral": ("hello",),
        "progress": False,
    }
    one, other = (steer.select(lm, v, held_out, **options) for v in (real, real * 1e-7))
    ((end,), (none,)) = (found.held_out.values() for found in (one, other))
    assert one.likelihood_effect
    assert end.evidence.after == end.steered.value > end.evidence.before
    said = " ".join(repr(one).split())
    assert f"accuracy {end.evidence.before:.1%} → {end.steered.value:.1%}" in said
    assert not other.likelihood_effect
    assert (none.evidence.gained, none.evidence.lost) == (0, 0)


def test_rounding_is_that_of_the_dtype() -> None:
    score = torch.tensor([-1.0, -3.0])
    found = Preference(score, score * 2, "mean")
    exact, single, half = (
        rounding(found, found, d) for d in (torch.float64, torch.float32, torch.bfloat16)
    )
    assert exact == single == [10 * 2.0**-23, 22 * 2.0**-23]
    assert half == [10 * 2.0**-7, 22 * 2.0**-7]


def test_no_seed_shares_a_random_vector_with_another() -> None:
    knobs = steer.compose(a=steer.Vector.of({1: torch.ones(8)}))(0.5)
    drawn = [
        r.parts["a"].vector.direction(1) for s in (0, 1, 2, 1000) for r in references(knobs, s)
    ]
    assert len({tuple(v.tolist()) for v in drawn}) == len(drawn) == 4 * 16
    again = references(knobs, 1)[3].parts["a"].vector.direction(1)
    assert torch.equal(again, drawn[16 + 3])


def test_useless_vectors_pass_at_most_as_often_as_alpha_says() -> None:
    """1,000 directions whose gain differs between directions by more than between pairs."""
    draw = random.Random(0)

    def gain(direction: float) -> list[float]:
        return [direction + draw.gauss(0, 0.2) for _ in range(30)]

    grid, passed, uncorrected = 4, 0, 0
    for _ in range(1000):
        effects = [draw.gauss(0, 1) for _ in range(grid)]  # of the vector at each setting
        best = max(effects)  # what validation pairs, however many, would choose
        others = [gain(draw.gauss(0, 1)) for _ in range(16)]
        found = evidence([0.0] * 30, gain(best), others, grid)
        passed += found.holds()
        uncorrected += found.holds(0.01 * grid)
    assert passed <= 20  # the 99.8% quantile of Binomial(1000, 0.01)
    assert uncorrected > 20
    real = evidence([0.0] * 30, gain(8.0), [gain(draw.gauss(0, 1)) for _ in range(16)], grid)
    assert real.holds()
    assert (real.gained, real.lost, real.references) == (30, 0, 16)


def test_random_vectors_of_the_demo_model_do_not_pass_and_real_ones_do() -> None:
    lm = load_model()
    real = residual_vectors(lm)["financial"]
    for seed in range(2):
        assert not evidence_of(lm, random_like(real, 1_000 + seed), "financial", seed).holds()
    assert evidence_of(lm, real, "financial", 0).holds()
