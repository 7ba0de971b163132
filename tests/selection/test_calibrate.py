"""Coefficients of equal KL."""

import pytest
import torch

import steer
from steer.errors import ArgumentError, SelectionError
from steer.selection import calibrate, compare_at_kl
from tests.conformance.cases import gate, knobs, mixed, vector
from tests.measure.setting import model, pairs

ASKED = ("how are you", "what is it")


@pytest.fixture(scope="module")
def text():
    return steer.neutral_text(model(), ASKED, max_new_tokens=6)


@pytest.mark.parametrize("size", [0.02, 0.5, 3.0])
@pytest.mark.parametrize("kl", [0.003, 0.1])
def test_the_kl_is_reached(text, size: float, kl: float) -> None:
    v = vector(1, size=size)
    c = calibrate(model(), v, kl, neutral=text, most=200.0, tolerance=0.01)
    with model().steered(v, c):
        assert steer.kl_divergence(model(), text).value == pytest.approx(kl, rel=0.0101)
    twice = calibrate(model(), 2 * v, kl, neutral=text, most=100.0, tolerance=0.01)
    assert twice == pytest.approx(c / 2, rel=0.02)


def test_compositions_of_every_kind(text) -> None:
    for composition in (mixed(model(), "both"), knobs(gate=gate())):
        at = composition([0.5, -1.0, 0.25][: len(composition.domains)])
        c = calibrate(model(), at, 0.02, neutral=text, most=100.0)
        with model().steered(at, at.coefficients[0] * c):
            assert steer.kl_divergence(model(), text).value == pytest.approx(0.02, rel=0.011)


def test_out_of_reach_is_said(text) -> None:
    with pytest.raises(SelectionError, match="out of reach"):
        calibrate(model(), vector(1, size=1e-4), 1.0, neutral=text)
    for idle in (knobs()(0.0), vector(1, size=0.0)):
        with pytest.raises(SelectionError, match=r"out of reach(.|\n)*KL 0 nats"):
            calibrate(model(), idle, 1.0, neutral=text)
    with pytest.raises(ArgumentError, match="kl must be"):
        calibrate(model(), vector(1), 0.0, neutral=text)


def test_a_table_at_equal_kl(text) -> None:
    both = {"a": vector(1), "b": vector(2, seed=4), "twice": 2 * vector(1)}
    found = compare_at_kl(model(), both, pairs(), 0.02, neutral=text, most=50.0)
    assert [row["name"] for row in found.rows] == ["a", "b", "twice"]
    for row in found.rows:
        assert row["kl"] == pytest.approx(0.02, rel=0.011)
        with model().steered(both[row["name"]], row["coefficient"]):
            expected = steer.preference(model(), pairs())
        assert row["accuracy"] == expected.accuracy.value
        assert row["margin"] == pytest.approx(expected.margin, abs=1e-4)
    assert "At KL 0.02" in repr(found)
    assert torch.isfinite(torch.tensor([row["margin"] for row in found.rows])).all()
