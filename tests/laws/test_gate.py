"""The domain gate against a loop over prompts and centroids."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steer import Vector, compose
from steer.algebra import DomainGate
from steer.errors import AlgebraError, CompositionError, SteerError
from tests.laws.spaces import SEEDS, normal

NAMES = ("medical", "legal", "financial")


def naive(x, centroids, named, margin):
    rows = []
    for row in x.tolist():
        far = [math.dist(row, c) for c in centroids.tolist()]
        rows.append([1.0 if d <= min(far) + margin else 0.0 for d in far[:named]])
    return rows


@given(SEEDS, st.integers(1, 3), st.integers(0, 2), st.integers(1, 5), st.floats(0, 2))
def test_the_gate_opens_the_nearest_domains(seed, named, background, rows, margin):
    centroids = normal(seed, named + background, 4).float()
    x = normal(seed + 1, rows, 4).float()
    gate = DomainGate(NAMES[:named], centroids, 0, margin)
    assert gate(x).tolist() == naive(x, centroids, named, margin)


@given(SEEDS, st.integers(1, 3))
def test_a_centroid_itself_opens_its_own_domain_alone(seed, named):
    centroids = normal(seed, named, 6)
    assert torch.equal(DomainGate(NAMES[:named], centroids, 0)(centroids), torch.eye(named))


def test_a_prompt_near_the_background_opens_nothing():
    gate = DomainGate(("a", "b"), torch.tensor([[0.0], [10.0], [5.0]]), 0)
    assert gate(torch.tensor([[5.1], [1.0], [9.0]])).tolist() == [[0, 0], [1, 0], [0, 1]]
    assert gate.distances(torch.tensor([[4.0]])).tolist() == [[4, 6, 1]]


def test_a_margin_opens_what_is_almost_nearest():
    centroids = torch.tensor([[0.0], [10.0]])
    x = torch.tensor([[4.0], [5.0]])
    assert DomainGate(("a", "b"), centroids, 0, margin=1.0)(x).tolist() == [[1, 0], [1, 1]]
    assert DomainGate(("a", "b"), centroids, 0, margin=2.0)(x).tolist() == [[1, 1], [1, 1]]


def test_columns_follow_the_names():
    gate = DomainGate(NAMES, torch.eye(3), 0)
    assert gate.columns(["financial", "medical"]) == [2, 0]
    with pytest.raises(CompositionError, match=r"no centroid for \['cooking'\]"):
        gate.columns(["medical", "cooking"])


@pytest.mark.parametrize(
    ("domains", "centroids", "margin", "message"),
    [
        ((), torch.ones(1, 2), 0.0, "do not match"),
        (("a", "a"), torch.ones(2, 2), 0.0, "do not match"),
        (("a", "b"), torch.ones(1, 2), 0.0, "do not match"),
        (("a",), torch.ones(2), 0.0, "do not match"),
        (("a",), torch.tensor([[float("nan")]]), 0.0, "not finite"),
        (("a",), torch.tensor([[float("inf")]]), 0.0, "not finite"),
        (("a",), torch.ones(1, 2), -1.0, "margin must be"),
        (("a",), torch.ones(1, 2), float("nan"), "margin must be"),
        (("a",), torch.ones(1, 2), float("inf"), "margin must be"),
    ],
)
def test_unusable_gates_are_refused(domains, centroids, margin, message):
    with pytest.raises(SteerError, match=message):
        DomainGate(domains, centroids, 0, margin)


def test_a_gate_is_read_at_a_block():
    with pytest.raises(AlgebraError, match="no such residual site"):
        DomainGate(("a",), torch.ones(1, 2), -2)


def test_what_is_no_gate_is_refused():
    knobs = compose(medical=Vector.of({1: torch.ones(2)}))
    with pytest.raises(CompositionError, match="this is no gate"):
        knobs.gated(True)
    with pytest.raises(CompositionError, match="this is no gate"):
        compose(medical=Vector.of({1: torch.ones(2)}), gate=Vector.of({1: torch.ones(2)}))
