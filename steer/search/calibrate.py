"""Coefficients of equal side effect, so that vectors can be compared."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tqdm.auto import tqdm

from steer.composition import Steerable, as_composition
from steer.engine.base import unsteered
from steer.errors import SelectionError
from steer.evaluate.interval import Share
from steer.evaluate.kl import NeutralText, neutral_text
from steer.evaluate.neutral import NEUTRAL_PROMPTS
from steer.evaluate.preference import Reduce
from steer.evaluate.table import Row, Tabled
from steer.model import Model, check_model
from steer.pairs import Pairs, Prompt, as_pairs
from steer.search.at_settings import at_settings
from steer.search.effects import SideEffects
from steer.term import inner

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
    effects = SideEffects(model, composition, text)
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

    with tqdm(desc="calibrate", unit="coefficient", disable=None if progress else True) as bar:

        def at(c: float) -> float:
            found = effects(own * c)[0][0]
            bar.update()
            if math.isnan(found):
                raise _out_of_reach(kl, (c, found))
            return found

        return _crossing(at, kl, most, tolerance)


def _crossing(at: Callable[[float], float], kl: float, most: float, tolerance: float) -> float:
    """Return where a KL crosses a value, of which `calibrate` says how it is looked for."""
    low, high = (0.0, 0.0), (most * _FIRST, at(most * _FIRST))
    while high[1] < kl * (1 - tolerance):
        if high[0] >= most:
            raise _out_of_reach(kl, high)
        low = high
        c = min(most, 2 * high[0])
        high = (c, at(c))
    for step in range(_STEPS):
        for c, found in (low, high):
            if abs(found - kl) <= tolerance * kl:
                return c
        c = _between(low, high, kl, halve=step % 3 == 2)
        middle = (c, at(c))
        low, high = (middle, high) if middle[1] < kl else (low, middle)
    raise SelectionError(
        "the KL jumps over the value wanted",
        found=f"{low[1]:.4g} at {low[0]:.6g} and {high[1]:.4g} at {high[0]:.6g}",
        expected=f"{kl:g} within {tolerance:g}",
        do="allow a larger tolerance",
    )


def _between(
    low: tuple[float, float], high: tuple[float, float], kl: float, *, halve: bool
) -> float:
    """Return where √KL would be √kl were it linear, or the middle."""
    a, b = max(low[1], 0.0) ** 0.5, high[1] ** 0.5
    share = 0.5 if halve or b <= a else (kl**0.5 - a) / (b - a)
    return low[0] + min(max(share, 0.01), 0.99) * (high[0] - low[0])


def _out_of_reach(kl: float, high: tuple[float, float]) -> SelectionError:
    return SelectionError(
        "the side effect is out of reach",
        found=f"KL {high[1]:.4g} nats per token at coefficient {high[0]:g}",
        expected=f"{kl:g}",
        do="ask for a smaller KL, or allow a larger coefficient: most=…",
    )


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Compared(Tabled):
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
    coefficients, reached, accuracy, margin = {}, {}, {}, {}
    for name, what in tqdm(candidates.items(), desc="compare", disable=None if progress else True):
        c = calibrate(model, what, kl, neutral=text, most=most, tolerance=tolerance, progress=False)
        composition = as_composition(what)
        rows = composition.coefficients[:1] * c
        found = at_settings(model, [composition(rows[0])], {"": pairs}, reduce)[0][""]
        coefficients[name] = c
        reached[name] = SideEffects(model, composition, text)(rows)[0][0]
        accuracy[name], margin[name] = found.accuracy, found.margin
    return Compared(kl, coefficients, reached, accuracy, margin, reduce)
