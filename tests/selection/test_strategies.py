"""What every way to search owes: each setting once, within budget, the same for equal seeds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer.errors import ArgumentError
from steer.selection import CoarseToFine, Exhaustive, Limits, SettingResult
from steer.selection._setting import front
from steer.selection._strategy import strategy_of
from tests.selection.synthetic import VALUES, Counted, field, peak


@pytest.mark.parametrize("how", [Exhaustive(), CoarseToFine()], ids=lambda s: type(s).__name__)
def test_each_setting_once_and_within_the_budget(how) -> None:
    measure = Counted()
    asked = field(measure, budget=40)
    how.search(asked)
    assert len(measure.seen) == len(set(measure.seen)) == len(asked.results) == 40
    assert measure.calls < 20  # in batches


def test_equal_seeds_try_the_same_settings() -> None:
    def seen(seed: int) -> list[tuple[float, ...]]:
        measure = Counted()
        CoarseToFine().search(field(measure, seed=seed))
        return measure.seen

    assert seen(1) == seen(1)
    assert seen(1) != seen(2)


@pytest.mark.parametrize("seed", range(10))
def test_coarse_to_fine_finds_the_best_of_the_grid_with_few_settings(seed: int) -> None:
    best = max((peak((a, b)) for a in VALUES for b in VALUES), key=lambda t: t.rank(0.0))
    measure = Counted()
    asked = field(measure, seed=seed)
    CoarseToFine().search(asked)
    assert asked.chosen().best.objective == best.objective
    assert len(measure.seen) < 441 / 3


def test_limits_are_kept_and_the_best_within_them_is_found() -> None:
    limits = Limits(kl=0.2)
    inside = [t for a in VALUES for b in VALUES if (t := peak((a, b))).kl <= 0.2]
    best = max(inside, key=lambda t: t.rank(0.0)).objective
    asked = field(Counted(), limits=limits)
    CoarseToFine().search(asked)
    assert asked.chosen().best.kl <= 0.2
    assert asked.chosen().best.objective == best


def test_many_domains_begin_at_random() -> None:
    measure = Counted(lambda c: peak(c[:2]))
    CoarseToFine().search(field(measure, domains=9, budget=60))
    assert len(set(measure.seen)) == 60


def test_no_more_settings_are_looked_at_than_are_tried() -> None:
    def endless():
        yield from [(0, 0), (0, 0), (0, 1), (1, 1)]
        raise AssertionError("asked for more")

    asked = field(Counted())
    assert asked.evaluate(endless(), 3) == [(0, 0), (0, 1), (1, 1)]


def test_a_strategy_of_ones_own_needs_one_method() -> None:
    class Corners:
        def search(self, field) -> None:
            field.evaluate([(-1.0, -1.0), (1.0, 1.0), (-1.0, -1.0)])

    asked = field(Counted())
    strategy_of(Corners()).search(asked)
    assert list(asked.tried[0]) == [(-1.0, -1.0), (1.0, 1.0)]
    with pytest.raises(ArgumentError, match="strategy is not one of"):
        strategy_of("guess")


_POINTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12)


@given(_POINTS)
@settings(max_examples=40)
def test_the_front_is_the_maximal_set(points) -> None:
    """Exactly the values that nothing beats, each once, and everything else is beaten."""
    every = [
        SettingResult((float(k),), o / 4, {}, 0.0, kl=float(kl)) for k, (o, kl) in enumerate(points)
    ]
    found = [every[k] for k in front([(t.kl, t.objective) for t in every])]

    def beats(a: SettingResult, b: SettingResult) -> bool:
        ahead = a.objective >= b.objective and a.kl <= b.kl
        return ahead and (a.objective, a.kl) != (b.objective, b.kl)

    maximal = {(t.objective, t.kl) for t in every if not any(beats(o, t) for o in every)}
    assert {(t.objective, t.kl) for t in found} == maximal
    assert len(found) == len(maximal)
    assert [t.kl for t in found] == sorted(t.kl for t in found)


def test_limits_that_make_no_sense_are_refused() -> None:
    for wrong in (-1.0, float("nan"), "0.5"):
        with pytest.raises(ArgumentError, match="the limit kl must be"):
            Limits(kl=wrong)
