"""What every way to search owes: each setting once, within budget, the same for equal seeds."""

import sys
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer.errors import MissingExtraError, SelectionError
from steer.selection import CoarseToFine, Exhaustive, Limits, Optuna, SettingResult, Space, Task
from steer.selection.run import chosen
from steer.selection.setting import front
from steer.selection.strategy import strategy_of
from tests.selection.synthetic import VALUES, Counted, peak, task


@pytest.mark.parametrize(
    "how", [Exhaustive(), CoarseToFine(), Optuna()], ids=lambda s: type(s).__name__
)
def test_each_setting_once_and_within_the_budget(how) -> None:
    measure = Counted()
    asked = task(measure, budget=40)
    how.search([asked])
    assert len(measure.seen) == len(set(measure.seen)) == asked.evaluated == 40
    assert measure.calls < 20  # in batches


@pytest.mark.parametrize("how", [CoarseToFine(), Optuna(budget=40)], ids=["coarse", "optuna"])
def test_equal_seeds_try_the_same_settings(how) -> None:
    def seen(seed: int) -> list[tuple[float, ...]]:
        measure = Counted()
        how.search([task(measure, seed=seed)])
        return measure.seen

    assert seen(1) == seen(1)
    assert seen(1) != seen(2)


@pytest.mark.parametrize("seed", range(10))
def test_coarse_to_fine_finds_the_best_of_the_grid_with_few_settings(seed: int) -> None:
    best = max((peak((a, b)) for a in VALUES for b in VALUES), key=lambda t: t.rank(0.0))
    measure = Counted()
    asked = task(measure, seed=seed)
    CoarseToFine().search([asked])
    assert chosen([asked], asked.limits).best.objective == best.objective
    assert len(measure.seen) < 441 / 3


@pytest.mark.parametrize("how", [CoarseToFine(), Optuna(budget=80)], ids=["coarse", "optuna"])
def test_limits_are_kept_and_the_best_within_them_is_found(how) -> None:
    limits = Limits(kl=0.2)
    inside = [t for a in VALUES for b in VALUES if (t := peak((a, b))).kl <= 0.2]
    best = max(inside, key=lambda t: t.rank(0.0)).objective
    asked = task(Counted(), limits=limits)
    how.search([asked])
    assert chosen([asked], asked.limits).best.kl <= 0.2
    assert chosen([asked], asked.limits).best.objective >= best - 0.05
    if isinstance(how, CoarseToFine):
        assert chosen([asked], asked.limits).best.objective == best


@pytest.mark.parametrize("content", [b"\xff\xfe", b'{"op_code": 0,\n{}\n', None])
def test_a_storage_that_cannot_be_used_is_named(tmp_path, content) -> None:
    path = tmp_path / "study.log"
    path.write_bytes(content) if content else path.mkdir()
    with pytest.raises(SelectionError, match=r"study\.log(:| cannot be used)"):
        Optuna(path).search([task(Counted())])
    with pytest.raises(SelectionError, match="storage nosuch:// cannot be used") as error:
        Optuna("nosuch://me:secret@host/db").search([task(Counted())])
    assert "secret" not in str(error.value)


def test_many_domains_begin_at_random() -> None:
    measure = Counted(lambda c: peak(c[:2]))
    CoarseToFine().search([task(measure, domains=9, budget=60)])
    assert len(set(measure.seen)) == 60


def test_a_study_goes_on_where_it_was_left_and_shares_what_it_knows(tmp_path) -> None:
    storage = tmp_path / "study.log"
    first, second, other = Counted(), Counted(), Counted()
    Optuna(storage, budget=30).search([task(first)])
    resumed = task(second)
    Optuna(storage, budget=30).search([resumed])
    assert not second.seen
    assert resumed.evaluated == 0
    assert {t.coefficients for t in resumed.tried.values()} == set(first.seen)
    assert [resumed.tried[i] for i in sorted(resumed.tried)] == [
        peak(resumed.space.coefficients(i)) for i in sorted(resumed.tried)
    ]
    Optuna(storage, worker=1, budget=50).search([task(other)])
    assert len(other.seen) == 20
    assert not set(other.seen) & set(first.seen)


@pytest.mark.parametrize(
    ("url", "at", "budget"), [("{}/study.log", 16, 40), ("sqlite:///{}/s.db", 2, 3)]
)
def test_a_study_that_was_interrupted_is_resumed(tmp_path, url: str, at: int, budget: int) -> None:
    class Killed(Counted):
        def __call__(self, settings):
            if len(self.seen) >= at:
                raise KeyboardInterrupt
            return super().__call__(settings)

    how = Optuna(url.format(tmp_path), budget=budget, together=min(at, 16))
    killed, after = Killed(), Counted()
    with pytest.raises(KeyboardInterrupt):
        how.search([task(killed)])
    how.search([task(after)])
    assert len(killed.seen) == at
    assert len(after.seen) == budget - at
    assert not set(after.seen) & set(killed.seen)


def test_no_more_settings_are_looked_at_than_are_tried() -> None:
    def endless():
        yield from [(0, 0), (0, 0), (30, 0), (0, 1), (1, 1)]
        raise AssertionError("asked for more")

    asked = task(Counted())
    assert asked.evaluate(endless(), 3) == [(0, 0), (0, 1), (1, 1)]


def test_a_round_that_brings_nothing_new_lists_no_settings() -> None:
    class Unlisted(Space):
        __slots__ = ()

        def __iter__(self):
            raise AssertionError("a space may hold more settings than there is time for")

    measure = Counted()
    space = Unlisted(("a", "b"), ((0.0, 0.5, 1.0),) * 2)
    Optuna(together=2).search([Task(space, measure, Limits(), fingerprint="request")])
    assert len(set(measure.seen)) == len(measure.seen) == 9


def test_a_study_of_what_has_no_name_is_not_stored(tmp_path) -> None:
    with pytest.raises(SelectionError, match="cannot be stored"):
        Optuna(tmp_path / "s", budget=4).search([task(Counted(), fingerprint="")])
    assert not (tmp_path / "s").exists()
    measure = Counted()
    Optuna(budget=4).search([task(measure, fingerprint="")])
    assert len(measure.seen) == 4


def test_a_study_of_another_request_is_refused(tmp_path) -> None:
    Optuna(tmp_path / "s", budget=4).search([task(Counted())])
    with pytest.raises(SelectionError, match="belongs to another request"):
        Optuna(tmp_path / "s", budget=4).search([task(Counted(), fingerprint="other")])


def test_optuna_leaves_its_logging_as_it_was_and_may_be_missing(monkeypatch) -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Optuna(budget=3).search([task(Counted())])
    assert optuna.logging.get_verbosity() == before
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"residual-steer\[search\]"):
        Optuna(budget=3).search([task(Counted())])


def test_a_strategy_of_ones_own_needs_one_method() -> None:
    class Corners:
        def search(self, tasks, field=None) -> None:
            tasks[0].evaluate([(0, 0), (20, 20), (0, 0), (21, 0)])

    asked = task(Counted())
    strategy_of(Corners()).search([asked])
    assert list(asked.tried) == [(0, 0), (20, 20)]
    with pytest.raises(SelectionError, match="unknown strategy"):
        strategy_of("guess")


_POINTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12)


@given(_POINTS)
@settings(max_examples=40)
def test_the_front_is_the_maximal_set(points) -> None:
    """Exactly the values that nothing beats, each once, and everything else is beaten."""
    every = [
        SettingResult((float(k),), o / 4, {}, 0.0, kl=float(kl)) for k, (o, kl) in enumerate(points)
    ]
    found = front(every)

    def beats(a: SettingResult, b: SettingResult) -> bool:
        ahead = a.objective >= b.objective and a.kl <= b.kl
        return ahead and (a.objective, a.kl) != (b.objective, b.kl)

    maximal = {(t.objective, t.kl) for t in every if not any(beats(o, t) for o in every)}
    assert {(t.objective, t.kl) for t in found} == maximal
    assert len(found) == len(maximal)
    assert [t.kl for t in found] == sorted(t.kl for t in found)


def test_limits_that_make_no_sense_are_refused() -> None:
    for wrong in (-1.0, float("nan"), "0.5"):
        with pytest.raises(SelectionError, match="cannot be kept"):
            Limits(kl=wrong)
