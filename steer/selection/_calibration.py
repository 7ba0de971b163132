"""Coefficients of equal side effect, so that vectors can be compared."""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tqdm.auto import tqdm

from steer.algebra import as_composition, inner
from steer.algebra._composition import Steerable
from steer.engine import unsteered
from steer.errors import SelectionError
from steer.measure import NEUTRAL_PROMPTS, NeutralText, Share, neutral_text
from steer.measure._reduce import Reduce
from steer.model import Model, check_model
from steer.pairs import Pairs, Prompt, as_pairs
from steer.selection._kernel import SideEffects, at, preferences_at
from steer.show import Result, Row

Search = Generator[float, float, tuple[float, float]]
_K = TypeVar("_K")
_FIRST = 1 / 16  # of `most`, where the bracket is begun
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

    The coefficient c multiplies the composition's own coefficients (all 1 for vectors). It is
    doubled until the KL is passed, then the crossing is closed in by false position on √KL, which
    is linear in c for small c, and by halving where that is slow.

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
        SelectionError: The KL is not above 0, is not reached up to `most`, or is no number; or the
            vector or its coefficients are 0.
        FitError: A vector does not fit this model.
    """
    check_model(model)
    unsteered(model.engine, "calibrate")
    if not (kl > 0 and most > 0 and tolerance > 0):
        raise SelectionError(
            "this side effect cannot be calibrated to",
            found=f"kl {kl!r}, most {most!r}, tolerance {tolerance!r}",
            expected="numbers above 0",
            do="calibrate(model, vector, kl=0.1)",
        )
    composition = as_composition(what)
    text = neutral if isinstance(neutral, NeutralText) else neutral_text(model, neutral)
    effects = SideEffects(model, text)
    own = composition.coefficients[:1]
    parts = composition.parts.values()
    lengths = [inner(term, term) for part in parts for term in part.vector.terms.values()]
    if not bool(own.any()) or not any(lengths):
        raise SelectionError(
            "this vector does nothing",
            found="coefficients that are all 0" if any(lengths) else "a vector of length 0",
            expected="something that moves the model when its coefficients are multiplied",
            do="calibrate(model, vector, kl=…), or a composition at knobs(1.0)",
        )

    low, high = kl * (1 - tolerance), kl * (1 + tolerance)
    with tqdm(desc="calibrate", unit="coefficient", disable=None if progress else True) as bar:

        def measure(tried: Mapping[str, float]) -> dict[str, float]:
            row = tuple((own * tried[""])[0].tolist())
            ((found, _),) = effects([(composition, row)])
            bar.update()
            if math.isnan(found):
                raise _out_of_reach(kl, (tried[""], found))
            return {"": found}

        search = crossing(low, high, most * _FIRST, most)
        ((c, found),) = lockstep({"": search}, measure).values()
    if low <= found <= high:
        return c
    if c >= most:
        raise _out_of_reach(kl, (c, found))
    raise SelectionError(
        "the KL jumps over the value wanted",
        found=f"{found:.4g} at {c:.6g}, and more above",
        expected=f"{kl:g} within {tolerance:g}",
        do="allow a larger tolerance",
    )


def crossing(low: float, high: float, first: float, most: float) -> Search:
    """Yield coefficients, get the KL of each; return one whose KL lies between two values, and it.

    The coefficient is raised, at most doubled, until the KL is passed; then false position on √KL,
    which is linear in it for small ones, and halving where that is slow. Where the KL never lies
    there, the nearest coefficient below is returned, at worst 0.
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


def lockstep(
    searches: Mapping[_K, Search], measure: Callable[[Mapping[_K, float]], Mapping[_K, float]]
) -> dict[_K, tuple[float, float]]:
    """Run several searches together: what each asks for next is measured in one call."""
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
    return found


def _between(
    below: tuple[float, float], above: tuple[float, float], goal: float, *, halve: bool
) -> float:
    """Return where √KL would be the goal were it linear, or the middle."""
    a, b = math.sqrt(max(below[1], 0.0)), math.sqrt(above[1])
    straight = math.isfinite(b) and b > a and not halve
    share = (goal - a) / (b - a) if straight else 0.5
    return below[0] + min(max(share, 0.01), 0.99) * (above[0] - below[0])


def _out_of_reach(kl: float, high: tuple[float, float]) -> SelectionError:
    return SelectionError(
        "the side effect is out of reach",
        found=f"KL {high[1]:.4g} nats per token at coefficient {high[0]:g}",
        expected=f"{kl:g}",
        do="ask for a smaller KL, or allow a larger coefficient: most=…",
    )


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Compared(Result):
    """Vectors at the coefficients that cost the same.

    Args:
        kl: The KL asked for, nats per response token.
        coefficients: The coefficient of each vector.
        reached: The KL there.
        accuracy: Preference accuracy there, by vector.
        margin: Mean margin there, in nats, by vector.
        reduce: Whether answers were scored by mean or sum of log-probabilities.
    """

    kl: float
    coefficients: Mapping[str, float]
    reached: Mapping[str, float]
    accuracy: Mapping[str, Share]
    margin: Mapping[str, float]
    reduce: Reduce

    @property
    def title(self) -> str:
        """What stands above the rows."""
        return f"At KL {self.kl:g} nats per token ({self.reduce} log-probability)"

    @property
    def rows(self) -> list[Row]:
        """One row per vector: coefficient, KL, accuracy with its interval, and margin."""
        return [
            {
                "name": name,
                "coefficient": self.coefficients[name],
                "kl": self.reached[name],
                "accuracy": share.value,
                "low": share.interval[0],
                "high": share.interval[1],
                "margin": self.margin[name],
                "n": share.n,
            }
            for name, share in self.accuracy.items()
        ]


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
    """Return how well vectors do what pairs ask when each costs the same KL on neutral text.

    Args:
        model: The model; it must not be steered.
        candidates: What to compare, by name.
        pairs: Pairs that none of them was made from.
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
    check_model(model)
    unsteered(model.engine, "compare_at_kl")
    pairs = as_pairs(pairs)
    if not len(pairs):
        raise SelectionError(
            "there is nothing to compare on",
            found="no pairs",
            expected="at least one preference pair",
            do="check the split or the domain's name",
        )
    text = neutral if isinstance(neutral, NeutralText) else neutral_text(model, neutral)
    effects = SideEffects(model, text)
    coefficients, reached, accuracy, margin = {}, {}, {}, {}
    for name, what in tqdm(candidates.items(), desc="compare", disable=None if progress else True):
        c = calibrate(model, what, kl, neutral=text, most=most, tolerance=tolerance, progress=False)
        composition = as_composition(what)
        rows = composition.coefficients[:1] * c
        there = composition(rows[0])
        found = preferences_at(model, [there], {"": pairs}, reduce)[0][""]
        coefficients[name] = c
        reached[name] = effects([at(there)])[0][0]
        accuracy[name], margin[name] = found.accuracy, found.margin
    return Compared(kl, coefficients, reached, accuracy, margin, reduce)
