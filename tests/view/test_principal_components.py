"""Principal components reconstruct the stream, and removing one removes its variance."""

from typing import Any

import pytest
import torch

import steer
from steer import view
from steer.errors import ArgumentError, RecordingError, SelectionError
from steer.view._reading import read_pairs
from tests.view.setting import AT, LAYER, half, held_out, model


def test_all_components_together_give_the_stream_back() -> None:
    found = view.principal_components(model(), held_out(), layer=LAYER, components=1000)
    stream = read_pairs(model(), held_out(), AT, [LAYER])
    both = torch.cat([stream.chosen[:, 0], stream.rejected[:, 0]])
    torch.testing.assert_close(found.mean + found.scores @ found.components, both)
    eye = torch.eye(len(found.components), dtype=torch.float64)
    torch.testing.assert_close(found.components @ found.components.T, eye)
    torch.testing.assert_close(found.scores.var(dim=0), found.variance)
    assert float(found.explained.sum()) == pytest.approx(1.0)
    assert found.total == pytest.approx(float(both.var(dim=0).sum()))
    assert (found.variance[:-1] >= found.variance[1:]).all()


def test_chosen_answers_lie_on_the_upper_side() -> None:
    found = view.principal_components(model(), held_out(), layer=LAYER)
    chosen, rejected = found.scores[found.chosen], found.scores[~found.chosen]
    assert (chosen.mean(dim=0) >= rejected.mean(dim=0)).all()
    assert found.rows[0]["AUC chosen"] == 1.0
    assert found.scores.shape == (2 * len(held_out()), 10)


def test_removing_a_component_removes_its_variance() -> None:
    lm = model()
    before = view.principal_components(lm, held_out(), layer=LAYER)
    first = steer.Vector.of({LAYER: before.components[0].float()})
    with lm.steered(first, 1.0, operator="ablate"):
        after = view.principal_components(lm, held_out(), layer=LAYER)
    assert after.total == pytest.approx(before.total - float(before.variance[0]), rel=1e-4)
    torch.testing.assert_close(after.variance[:3], before.variance[1:4], rtol=1e-3, atol=0)


def test_answers_keep_the_order_of_their_pairs() -> None:
    legal = steer.Pair("Is it?", "No .", "Yes .", "legal")
    found = view.principal_components(
        model(), held_out()[:3] + steer.Pairs.of([legal]), layer=LAYER, components=2
    )
    assert found.domains == ("medical", "medical", "medical", "legal") * 2
    assert found.chosen.tolist() == [True] * 4 + [False] * 4
    chart: Any = found.panels["answers"]
    assert chart.series["legal, rejected"].points == (tuple(found.scores[7].tolist()),)


def test_there_must_be_two_components() -> None:
    with pytest.raises(ArgumentError, match="components=1"):
        view.principal_components(model(), held_out(), layer=LAYER, components=1)
    with pytest.raises(RecordingError, match="no such layer"):
        view.principal_components(model(), held_out(), layer=99)


def test_rounding_is_no_component() -> None:
    """Answers that are there several times, and the mean taken off, leave fewer than answers."""
    pairs = held_out()[:4]
    once = view.principal_components(model(), pairs, layer=LAYER, components=100)
    thrice = view.principal_components(model(), pairs + pairs + pairs, layer=LAYER, components=100)
    assert len(once.components) == len(thrice.components) == 7
    torch.testing.assert_close(once.explained, thrice.explained, rtol=1e-4, atol=1e-6)
    with pytest.raises(SelectionError, match="1 above rounding"):
        view.principal_components(model(), held_out()[:1], layer=LAYER)


def test_in_half_precision_what_the_answers_say_is_a_component() -> None:
    found = view.principal_components(half(), held_out(), layer=LAYER, components=8)
    exact = view.principal_components(model(), held_out(), layer=LAYER, components=8)
    torch.testing.assert_close(found.explained, exact.explained, rtol=0.1, atol=0.005)
