"""Slopes, items that go backwards, and rank correlation, on scores made by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steer.errors import SelectionError
from steer.measure import Steerability


def test_planted_slopes_are_found():
    c = torch.tensor([-2.0, 0.0, 1.0, 3.0])
    scores = c[:, None] * torch.tensor([2.0, 1.0, -0.5, 0.0]) + torch.tensor([5.0, -1, 0, 7])
    found = Steerability(tuple(c.tolist()), scores, "margin")
    assert torch.allclose(found.slopes, torch.tensor([2.0, 1.0, -0.5, 0.0]).double())
    assert found.value == pytest.approx(2.5 / 4)
    assert (found.wrong_way.hits, found.wrong_way.n) == (1, 4)
    assert found.rank_correlation.items == pytest.approx((1, 1, -1, 0))
    assert found.interval[0] < found.value < found.interval[1]
    assert [row["measure"] for row in found.rows] == [
        "slope of margin",
        "items that move the wrong way",
        "rank correlation of coefficient and margin",
    ]
    curve = found.curve
    assert [row["coefficient"] for row in curve] == [-2, 0, 1, 3]
    assert curve[1]["value"] == pytest.approx(11 / 4)


def test_the_slope_is_that_of_least_squares():
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(6, generator=generator).double()
    scores = torch.randn(6, 9, generator=generator).double()
    design = torch.stack([torch.ones(6).double(), c], dim=1)
    expected = torch.linalg.lstsq(design, scores).solution[1]
    assert torch.allclose(Steerability(tuple(c.tolist()), scores).slopes, expected)


def test_equal_scores_share_their_rank():
    #  ranks of the scores: 0.5, 0.5, 2, 3 against 0, 1, 2, 3
    found = Steerability((0.0, 1.0, 2.0, 3.0), torch.tensor([[1.0], [1.0], [2.0], [9.0]]))
    assert found.rank_correlation.value == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


@given(
    st.lists(st.integers(-50, 50), min_size=3, max_size=7, unique=True),
    st.integers(0, 2**31),
    st.permutations(range(3)),
)
def test_laws(coefficients, seed, order):
    """Rising functions keep ranks; turning the coefficient round turns all; order is nothing."""
    scores = torch.randn(len(coefficients), 3, generator=torch.Generator().manual_seed(seed))
    found = Steerability(tuple(coefficients), scores)
    bent = Steerability(tuple(coefficients), scores.double().exp())
    assert found.rank_correlation.items == pytest.approx(bent.rank_correlation.items)
    back = Steerability(tuple(-c for c in coefficients), scores)
    assert torch.allclose(back.slopes, -found.slopes)
    assert back.wrong_way.hits == 3 - found.wrong_way.hits
    shuffled = Steerability(tuple(coefficients), scores[:, list(order)])
    assert torch.allclose(shuffled.slopes, found.slopes[list(order)])
    rows = list(reversed(range(len(coefficients))))
    turned = Steerability(tuple(coefficients[r] for r in rows), scores[rows])
    assert torch.allclose(turned.slopes, found.slopes)


@pytest.mark.parametrize(
    ("coefficients", "scores"),
    [
        ((1.0, 1.0), torch.zeros(2, 3)),
        ((0.0, 1.0), torch.zeros(3, 3)),
        ((0.0, 1.0), torch.zeros(2, 0)),
        ((0.0, 1.0), torch.zeros(2)),
        ((0.0, 1.0), torch.tensor([[0.0], [torch.nan]])),
        ((), torch.zeros(0, 0)),
    ],
)
def test_scores_without_a_slope_are_refused(coefficients, scores):
    with pytest.raises(SelectionError, match="no slope"):
        Steerability(coefficients, scores)
