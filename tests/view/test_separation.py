"""A direction separates chosen from rejected, until it is removed."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import steer
from steer import view
from steer.errors import RecordingError
from steer.view._reading import read_pairs
from steer.view._separate import auc, d_prime, resolution
from tests.view.setting import (
    AT,
    LAYER,
    activations,
    everywhere,
    half,
    held_out,
    model,
    palrs,
    train,
)

numbers = st.lists(st.integers(-5, 5).map(float), min_size=2, max_size=12)


def test_removing_the_direction_removes_the_separation() -> None:
    lm, v = model(), everywhere()[LAYER]
    before = view.separation(lm, everywhere(), held_out(), position=AT)
    with lm.steered(v, 1.0, operator="ablate"):
        after = view.separation(lm, everywhere(), held_out(), position=AT)
    row = before.layers.index(LAYER)
    assert before.auc[row].interval[0] > 0.8
    assert before.d_prime[row].interval[0] > 2
    low, high = after.auc[row].interval
    assert after.auc[row].value == 0.5
    assert low < 0.5 < high
    assert after.d_prime[row].value == 0.0
    assert torch.equal(before.chosen[:, :row], after.chosen[:, :row])


@pytest.mark.parametrize("order", range(8))
@pytest.mark.parametrize("shift", [0.0, 1 / 3, 1e3])
def test_what_any_order_of_summing_leaves_is_a_tie(order: int, shift: float) -> None:
    """Summed one by one: the order of a machine, and where all projections lie, decide nothing."""
    stream = read_pairs(model(), held_out(), AT, [LAYER])
    h = torch.cat([stream.chosen, stream.rejected])[:, 0].float()
    u = everywhere().direction(LAYER).double()
    u = u / u.norm()
    places = torch.randperm(len(u), generator=torch.Generator().manual_seed(order))
    along = (h * u.float())[:, places].cumsum(dim=1)[:, -1:]
    left = h - (along - shift) * u.float()
    products = left.double() * u
    tie = float(resolution(products[:, None], torch.finfo(torch.float32).eps))
    sides = products.sum(dim=-1).chunk(2)
    assert auc(*sides, tie).value == 0.5
    assert d_prime(*sides, tie).value == 0.0


def test_half_of_an_ablation_halves_the_difference_but_not_the_separation() -> None:
    lm, v = model(), everywhere()[LAYER]
    before = view.separation(lm, v, held_out(), position=AT)
    with lm.steered(v, 0.5, operator="ablate"):
        after = view.separation(lm, v, held_out(), position=AT)
    torch.testing.assert_close(after.chosen, before.chosen / 2, rtol=1e-4, atol=0.1)
    assert after.auc[0].value == pytest.approx(before.auc[0].value)
    assert after.d_prime[0].value == pytest.approx(before.d_prime[0].value, rel=1e-3)


def test_adding_the_vector_moves_both_sides_by_its_length() -> None:
    lm, v = model(), everywhere()[LAYER]
    before = view.separation(lm, v, held_out(), position=AT)
    with lm.steered(v, 0.5):
        after = view.separation(lm, v, held_out(), position=AT)
    shift = torch.full_like(before.chosen, 0.5 * v.norm())
    torch.testing.assert_close(after.chosen - before.chosen, shift, rtol=1e-4, atol=0)
    torch.testing.assert_close(after.rejected - before.rejected, shift, rtol=1e-4, atol=0)


def test_projections_are_those_computed_by_hand() -> None:
    lm = model()
    found = view.separation(lm, everywhere(), held_out()[:4], position="response_last")
    pairs = held_out()[:4]
    rows = lm.activations([p.prompt for p in pairs], [p.chosen for p in pairs])
    for k, row in enumerate(rows):
        for layer in everywhere().layers:
            v = everywhere().direction(layer).double()
            expected = float(row[layer, -1].double() @ v / v.norm())
            assert float(found.chosen[k, layer]) == pytest.approx(expected, rel=1e-4, abs=0.05)


def test_the_mean_difference_of_projections_is_that_of_the_moments() -> None:
    found = view.separation(model(), everywhere(), train(), position=AT)
    expected = activations().of(None, AT).difference.norm(dim=-1)
    difference = (found.chosen - found.rejected).mean(dim=0)
    torch.testing.assert_close(difference, expected, rtol=1e-4, atol=0)


def test_a_vector_of_one_layer_is_read_where_it_stands_or_where_asked() -> None:
    lm = model()
    assert view.separation(lm, palrs(), held_out()).layers == (LAYER,)
    found = view.separation(lm, palrs(), held_out(), layers=range(lm.n_layers))
    assert found.layers == tuple(range(lm.n_layers))
    assert found.position == palrs().provenance.arguments["position"]
    with pytest.raises(RecordingError, match="no direction at a layer"):
        view.separation(lm, everywhere()[1:3], held_out(), layers=[1, 5])


def test_layers_are_read_in_the_order_asked_for() -> None:
    lm, there = model(), [4, 1]
    found = view.separation(lm, everywhere(), held_out(), layers=there)
    whole = view.separation(lm, everywhere(), held_out())
    assert found.layers == (4, 1)
    torch.testing.assert_close(found.chosen, whole.chosen[:, there])


def test_nothing_to_read_is_an_error() -> None:
    lm = model()
    with pytest.raises(RecordingError, match="no pairs"):
        view.separation(lm, palrs(), steer.Pairs.of([]))
    with pytest.raises(RecordingError, match="no such token"):
        view.separation(lm, palrs(), held_out(), position="template[-9]")


def test_half_precision_does_not_round_the_separation_away() -> None:
    exact = view.separation(model(), everywhere(), held_out(), position=AT)
    found = view.separation(half(), everywhere(), held_out(), position=AT)
    spread = exact.chosen.std(dim=0)
    assert ((found.chosen - exact.chosen).abs().mean(dim=0) < 0.5 * spread).all()
    with half().steered(everywhere()[LAYER], 1.0, operator="ablate"):
        after = view.separation(half(), everywhere()[LAYER], held_out(), position=AT)
    assert after.auc[0].value == 0.5


def test_differences_up_to_the_tie_are_ties() -> None:
    a, b = row([1.0, 2.0]), row([1.25, 1.5])
    assert auc(a, b, 0.25).value == (2 + 0.5) / 4  # 1 and 1.25 tie, and 2 is above both
    assert auc(a, b, 0.5).value == (1 + 1.5) / 4
    assert auc(a, b, 1.0).value == 0.5
    assert d_prime(a, a + 0.25, 0.25).value == 0.0
    assert d_prime(row([1.0, 1.25]), row([0.0, 0.25]), 0.25).value == math.inf


@settings(max_examples=40)
@given(numbers, st.data())
def test_auc_counts_wins_and_half_of_ties(chosen: list[float], data: st.DataObject) -> None:
    rejected = data.draw(
        st.lists(st.integers(-5, 5).map(float), min_size=len(chosen), max_size=len(chosen))
    )
    found, other = auc(row(chosen), row(rejected)), auc(row(rejected), row(chosen))
    wins = sum((a > b) + (a == b) / 2 for a in chosen for b in rejected) / len(chosen) ** 2
    assert found.value == pytest.approx(wins)
    assert other.value == pytest.approx(1 - wins)
    assert 0 <= found.interval[0] <= found.value <= found.interval[1] <= 1
    assert found.interval[0] == pytest.approx(1 - other.interval[1], abs=1e-9)
    assert found.interval[1] > found.interval[0]


def test_the_interval_of_the_auc_holds_the_truth_about_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    shift = 1.0
    truth = 0.5 * (1 + math.erf(shift / 2))  # Φ(shift/√2)
    hits = 0
    for _ in range(200):
        a = torch.randn(25, generator=generator, dtype=torch.float64) + shift
        b = torch.randn(25, generator=generator, dtype=torch.float64)
        low, high = auc(a, b).interval
        hits += low <= truth <= high
    assert 184 <= hits < 200


def test_d_prime_is_the_distance_in_standard_deviations() -> None:
    a, b = row([1.0, 2.0, 4.0, 5.0]), row([0.0, 1.0, 1.0, 2.0])
    spread = math.sqrt((float(a.var()) + float(b.var())) / 2)
    found = d_prime(a, b)
    assert found.value == pytest.approx(float(a.mean() - b.mean()) / spread)
    left = []
    for k in range(4):
        keep = [i for i in range(4) if i != k]
        both = math.sqrt((float(a[keep].var()) + float(b[keep].var())) / 2)
        left.append(float(a[keep].mean() - b[keep].mean()) / both)
    mean = sum(left) / 4
    error = math.sqrt(3 / 4 * sum((x - mean) ** 2 for x in left))
    assert found.interval[1] - found.value == pytest.approx(3.182446 * error, rel=1e-5)


def test_d_prime_of_numbers_that_do_not_vary() -> None:
    same = row([1.0, 1.0, 1.0])
    assert d_prime(same, same).value == 0.0
    assert d_prime(same, same - 1).value == math.inf
    assert math.isnan(d_prime(same[:1], same[:1]).value)


def row(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_massive_activation_that_a_direction_does_not_see_rounds_nothing() -> None:
    """Large activations of a few dimensions are usual; the rest of the stream is read as well."""
    massive = torch.zeros(model().d_model)
    massive[5] = 1e5
    blind = everywhere().direction(LAYER) * (massive == 0)
    along = steer.Vector.of({LAYER: blind})
    plain = view.separation(half(), along, held_out(), position=AT)
    with half().steered(steer.Vector.of({LAYER: massive})):
        found = view.separation(half(), along, held_out(), position=AT)
    spread = plain.chosen.std(dim=0)
    assert ((found.chosen - plain.chosen).abs().mean(dim=0) < 0.5 * spread).all()
