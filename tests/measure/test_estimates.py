"""Intervals: against tables, formulas in full, and what they promise on drawn samples."""

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steer.errors import SelectionError
from steer.measure import Estimate, Share, ShareChange
from steer.measure._estimate import jackknife, mapped, mean_of, ratio_of, student, within

COUNTS = st.tuples(*[st.integers(0, 40)] * 4).filter(any)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [
        (1, 12.7062),
        (2, 4.3027),
        (3, 3.1824),
        (10, 2.2281),
        (30, 2.0423),
        (100, 1.9840),
        (1000, 1.9623),
        (10**9, 1.9600),
    ],
)
def test_students_quantile_is_that_of_the_tables(freedom, quantile):
    assert student(freedom) == pytest.approx(quantile, abs=5e-5)


def test_a_mean_has_the_t_interval():
    found = mean_of("length", [1.0, 2.0, 4.0, 9.0])
    half = 3.18245 * math.sqrt((9 + 4 + 0 + 25) / 3 / 4)
    assert found.value == 4.0
    assert found.interval == (pytest.approx(4 - half, abs=1e-4), pytest.approx(4 + half, abs=1e-4))
    assert (found.n, found.items) == (4, (1.0, 2.0, 4.0, 9.0))
    assert found.rows == [
        {"measure": "length", "value": 4.0, "low": found.interval[0], "high": found.interval[1]}
        | {"n": 4}
    ]


def test_one_item_has_no_interval_and_says_so():
    found = within(mean_of("length", [2.0]), 0.0, 1.0)
    assert found.value == 2.0
    assert all(map(math.isnan, found.interval))
    assert "no interval" in repr(found)
    assert ">–</td>" in found._repr_html_()


def test_what_cannot_be_averaged_is_refused():
    for items in ([], [1.0, math.nan], [math.inf]):
        with pytest.raises(SelectionError, match="cannot be averaged"):
            mean_of("length", items)


def test_a_ratio_is_of_sums_and_its_error_of_items():
    x, y = torch.tensor([2.0, 9.0, 4.0]).double(), torch.tensor([1.0, 3.0, 2.0]).double()
    found = ratio_of("nats per token", x, y)
    assert found.value == 15 / 6
    rest = [2 - 2.5, 9 - 7.5, 4 - 5]
    error = math.sqrt(sum(r * r for r in rest) / 6) / 2
    assert found.interval[1] - found.value == pytest.approx(4.30265 * error, abs=1e-4)
    assert found.items == (2.0, 3.0, 2.0)


def test_the_jackknife_of_a_mean_is_its_t_interval():
    x = torch.tensor([1.0, 2.0, 4.0, 9.0]).double()
    without = (x.sum() - x) / 3
    found = jackknife("mean", float(x.mean()), without, (-math.inf, 5.0))
    assert found.interval[0] == pytest.approx(mean_of("mean", x).interval[0])
    assert found.interval[1] == 5.0
    assert math.isnan(jackknife("mean", 1.0, [1.0, math.nan], (0, 1)).interval[0])


def test_a_rising_function_takes_the_ends_with_it():
    found = mapped(Estimate("nats", 0.0, (-1.0, 1.0), 2, (0.5,)), "perplexity", math.exp)
    assert found == Estimate("perplexity", 1.0, (math.exp(-1), math.e), 2)
    assert found.items == (math.exp(0.5),)


@given(COUNTS)
def test_a_change_lies_in_its_interval_and_turns_round_with_time(counts):
    kept, gained, lost, never = counts
    forth, back = ShareChange(kept, gained, lost, never), ShareChange(kept, lost, gained, never)
    low, high = forth.interval
    assert -1 <= low <= forth.value <= high <= 1
    assert forth.value == pytest.approx(forth.after.value - forth.before.value)
    assert back.value == -forth.value
    assert back.interval == (pytest.approx(-high), pytest.approx(-low))
    assert low < high


def test_a_change_is_newcombes_tenth_method_in_full():
    a, b, c, d = 20, 12, 2, 16  # both, after only, before only, neither
    found, n = ShareChange(a, b, c, d), a + b + c + d
    (l1, u1), (l2, u2) = Share(a + b, n).interval, Share(a + c, n).interval
    p1, p2 = (a + b) / n, (a + c) / n
    phi = (a * d - b * c - n / 2) / math.sqrt((a + b) * (c + d) * (a + c) * (b + d))
    low = math.sqrt((p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2)
    high = math.sqrt((u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2)
    assert found.value == pytest.approx(0.2)
    assert found.interval == (pytest.approx(0.2 - low), pytest.approx(0.2 + high))


def test_paired_intervals_hold_what_they_promise():
    """95% intervals, 1500 draws: at least 93% hold the truth (four standard errors below)."""
    rng = random.Random(0)
    chances, truth = (0.45, 0.2, 0.1, 0.25), 0.1
    held = 0
    for _ in range(1500):
        drawn = rng.choices(range(4), chances, k=40)
        low, high = ShareChange(*(drawn.count(kind) for kind in range(4))).interval
        held += low <= truth <= high
    assert held / 1500 >= 0.93


def test_a_change_counts_items():
    before, after = [True, True, False, False, False], [True, False, True, True, False]
    assert ShareChange.of(before, after) == ShareChange(1, 2, 1, 1)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        ShareChange.of(before, after[:-1])


def test_shares_print_as_tables_too():
    share, change = Share(3, 4), ShareChange(1, 2, 1, 0)
    assert share.rows[0]["value"] == 0.75
    assert change.rows[0]["value"] == 0.25
    assert "75.0%" in str(share)
    assert "+25.0%" in repr(change)
    assert ">0.75</td>" in share._repr_html_()
