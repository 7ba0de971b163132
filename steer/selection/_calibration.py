"""Coefficients with a given KL on neutral text."""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from steer._check import number
from steer._progress import progress_bar
from steer.algebra import Composition, as_composition
from steer.algebra._composition import Steerable
from steer.errors import SelectionError
from steer.measure import NEUTRAL_PROMPTS, NeutralText, neutral_text
from steer.measure._data import pairs_by_domain
from steer.measure._reduce import Reduce
from steer.measure._scores import at, preferences
from steer.measure._side_effects import SideEffects
from steer.model import Model, check_model
from steer.pairs import Pairs, Prompt
from steer.selection._candidates import Candidate
from steer.selection._evaluator import Evaluator
from steer.show import Result, Row

Search = Generator[float, float, tuple[float, float]]
_K = TypeVar("_K")
_FIRST = 1 / 16  # coefficient with which a bracket begins
_NEAR = 0.9  # of the KL budget: a coefficient that spends so much of it is calibrated
_STEPS = 60


def calibrate(
    model: Model,
    what: Steerable,
    kl: float,
    *,
    neutral: Sequence[Prompt] | NeutralText = NEUTRAL_PROMPTS,
    most: float = 8.0,
    tolerance: float = 0.01,
    progress: bool = True,
) -> float:
    """Return the coefficient at which KL(steered‖unsteered) on neutral text has a given value.

    The coefficient c multiplies the composition's own coefficients (all 1 for vectors). It starts
    small and is at most doubled until the KL is passed; then the crossing is closed in by false
    position on √KL, which is linear in c for small c, and by halving where that is slow.

    Args:
        model: The model; it must not be steered.
        what: A vector, vectors by domain, or a composition at the coefficients to be scaled.
        kl: The KL wanted, above 0, nats per response token.
        neutral: Prompts of no domain, or neutral text prepared by `neutral_text`.
        most: Largest coefficient to try; 1 for operators that take strengths up to 1.
        tolerance: How far the KL may be from `kl`, relative.
        progress: Whether to show a progress bar.

    Returns:
        c > 0, dimensionless, in the first doubling that passes the KL.

    Raises:
        SteeringError: The model is being steered.
        ArgumentError: `kl`, `most` or `tolerance` is not above 0.
        SelectionError: The KL is not reached up to `most`, jumps over the value, or is no number.
        FitError: A vector does not fit this model.
    """
    check_model(model, "calibrate")
    with progress_bar(progress=progress, desc="calibrate", unit="coefficient") as bar:
        given = {"": as_composition(what)}
        _, found = _calibrated(model, given, kl, neutral, most, tolerance, bar.update)
    return found[""]


def _calibrated(
    model: Model,
    compositions: Mapping[str, Composition],
    kl: float,
    neutral: Sequence[Prompt] | NeutralText,
    most: float,
    tolerance: float,
    done: Callable[[int], object],
) -> tuple[SideEffects, dict[str, float]]:
    """Return the coefficient of each composition with a KL, and what measured it."""
    for name, value in {"kl": kl, "most": most, "tolerance": tolerance}.items():
        number(name, value, above=0.0, do="calibrate(model, vector, kl=0.1)")
    text = neutral if isinstance(neutral, NeutralText) else neutral_text(model, neutral)
    effects, low, high = SideEffects(model, text), kl * (1 - tolerance), kl * (1 + tolerance)

    def measure(tried: Mapping[str, float]) -> dict[str, float]:
        found = effects([at(compositions[name], c) for name, c in tried.items()])
        done(len(found))
        for c, effect in zip(tried.values(), found, strict=True):
            _check(not math.isnan(effect.kl), kl, c, effect.kl)
        return {name: effect.kl for name, effect in zip(tried, found, strict=True)}

    searches = {name: _crossing(low, high, _FIRST, most) for name in compositions}
    ends = _together(searches, measure)
    for c, found in ends.values():
        _check(low <= found <= high, kl, c, found)
    return effects, {name: c for name, (c, _) in ends.items()}


def spend(
    evaluator: Evaluator,
    starts: Mapping[_K, tuple[Candidate, float, float]],
    kl: float,
    done: Callable[[int], object] = lambda n: None,
) -> dict[_K, tuple[float, float]]:
    """Return the coefficient of each candidate that spends a KL budget, and the KL there.

    The budget bounds the KL plus one standard error over the texts, so that the KL on other text
    rarely exceeds it. A start is a candidate, a first coefficient with its sign, and the largest.
    """
    searches = {
        k: _crossing(_NEAR * kl, kl, abs(first), most) for k, (_, first, most) in starts.items()
    }

    def tries(asked: Mapping[_K, float]) -> list[tuple[Candidate, tuple[float]]]:
        return [(starts[k][0], (math.copysign(c, starts[k][1]),)) for k, c in asked.items()]

    def measure(asked: Mapping[_K, float]) -> dict[_K, float]:
        found = [math.inf if e is None else e.upper for e in evaluator.costs(tries(asked))]
        done(len(searches) - len(asked))
        return dict(zip(asked, (math.inf if x != x else x for x in found), strict=True))

    found = {k: c for k, (c, _) in _together(searches, measure).items()}
    done(len(searches))
    own, costs = tries(found), evaluator.costs(tries(found))
    return {
        k: (row[0], 0.0 if cost is None else cost.kl)
        for k, (_, row), cost in zip(found, own, costs, strict=True)
    }


def _crossing(low: float, high: float, first: float, most: float) -> Search:
    """Search for a coefficient whose KL lies in a range: yields coefficients, is sent their KL.

    Returns the coefficient and its KL; if none is found, the nearest below, at worst 0.
    """
    below, above, c = (0.0, 0.0), None, min(first, most)
    goal = math.sqrt((low + high) / 2)
    for step in range(_STEPS):
        kl = yield c
        if low <= kl <= high:
            return c, kl
        if kl < low:
            below = (c, kl)
            if above is None and c >= most:
                break
        else:
            above = (c, kl)
        if above is None:
            root = math.sqrt(max(kl, 0.0))
            c = min(most, c * (2.0 if 2 * root <= goal else max(1.01, goal / root)))
        else:
            c = _between(below, above, goal, halve=step % 3 == 2)
    return below


def _between(
    below: tuple[float, float], above: tuple[float, float], goal: float, *, halve: bool
) -> float:
    """Return the coefficient where a linear √KL would reach the goal, or the middle."""
    a, b = math.sqrt(max(below[1], 0.0)), math.sqrt(above[1])
    straight = math.isfinite(b) and b > a and not halve
    share = (goal - a) / (b - a) if straight else 0.5
    return below[0] + min(max(share, 0.01), 0.99) * (above[0] - below[0])


def _together(
    searches: Mapping[_K, Search], measure: Callable[[Mapping[_K, float]], Mapping[_K, float]]
) -> dict[_K, tuple[float, float]]:
    """Run several searches in lockstep, with one measurement for all of them per step."""
    asked = {name: next(search) for name, search in searches.items()}
    found: dict[_K, tuple[float, float]] = {}
    while asked:
        asked_next = {}
        for name, kl in measure(asked).items():
            try:
                asked_next[name] = searches[name].send(kl)
            except StopIteration as end:
                found[name] = end.value
        asked = asked_next
    return {name: found[name] for name in searches}


def _check(reached: bool, kl: float, coefficient: float, found: float) -> None:
    if not reached:
        raise SelectionError(
            "this side effect is out of reach",
            found=f"KL {found:.4g} nats per token at coefficient {coefficient:.6g}",
            expected=f"{kl:g}",
            do="ask for a smaller KL, allow a larger coefficient (most=…) or a larger tolerance, "
            "and look whether the vector and its coefficients are 0",
        )


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Compared(Result):
    """Vectors at the coefficients that cost the same.

    Args:
        kl: The KL asked for, nats per response token.
        reduce: Whether answers were scored by mean or sum of log-probabilities.
        measured: What was measured of each vector.
    """

    kl: float
    reduce: Reduce
    measured: tuple[Row, ...]

    @property
    def title(self) -> str:
        """What stands above the rows."""
        return f"At KL {self.kl:g} nats per token ({self.reduce} log-probability)"

    @property
    def rows(self) -> list[Row]:
        """One row per vector: coefficient, KL, accuracy with its interval, and margin in nats."""
        return list(self.measured)


def compare_at_kl(
    model: Model,
    candidates: Mapping[str, Steerable],
    pairs: Pairs,
    kl: float,
    *,
    neutral: Sequence[Prompt] | NeutralText = NEUTRAL_PROMPTS,
    most: float = 8.0,
    tolerance: float = 0.01,
    reduce: Reduce = "mean",
    progress: bool = True,
) -> Compared:
    """Compare vectors on pairs, each at the coefficient with the same KL on neutral text.

    Args:
        model: The model; it must not be steered.
        candidates: Vectors or compositions by name.
        pairs: Preference pairs that no vector was made from.
        kl: The KL of all, nats per response token.
        neutral: Prompts of no domain, or neutral text prepared by `neutral_text`.
        most: Largest coefficient to try.
        tolerance: How far the KL may be from `kl`, relative.
        reduce: Score answers by the mean or the sum of their tokens' log-probabilities.
        progress: Whether to show a progress bar.

    Raises:
        SteeringError: The model is being steered.
        SelectionError: There are no pairs, or a vector does not reach the KL.
    """
    check_model(model, "compare_at_kl")
    pairs = pairs_by_domain({"": pairs})[""]
    given = {name: as_composition(what) for name, what in candidates.items()}
    with progress_bar(progress=progress, desc="compare", unit="coefficient") as bar:
        effects, found = _calibrated(model, given, kl, neutral, most, tolerance, bar.update)
    knobs = [at(given[name], c) for name, c in found.items()]
    measured = preferences(model, knobs, {"": pairs}, reduce)
    rows: tuple[Row, ...] = tuple(
        {
            "name": name,
            "coefficient": c,
            "kl": effect.kl,
            "accuracy": one[""].value,
            "low": one[""].interval[0],
            "high": one[""].interval[1],
            "margin": one[""].margin,
            "n": len(pairs),
        }
        for (name, c), effect, one in zip(found.items(), effects(knobs), measured, strict=True)
    )
    return Compared(kl, reduce, rows)
