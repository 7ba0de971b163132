"""The knobs of a composition: their ranges and where they stand."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from steer._check import is_number
from steer.algebra import Composition, Part, get_operator
from steer.errors import CompositionError

_STEPS = 40  # from one end of a slider to the other
_ROOM = 1.25  # of a range above the coefficient that was chosen


@dataclass(frozen=True, slots=True)
class Knob:
    """One domain's knob; all numbers are coefficients, dimensionless.

    Args:
        domain: Name of the domain.
        low: Lowest coefficient.
        high: Highest coefficient.
        value: Where it stands.
    """

    domain: str
    low: float
    high: float
    value: float

    @property
    def step(self) -> float:
        """What one press of a key changes."""
        return (self.high - self.low) / _STEPS


def knobs_of(
    composition: Composition, limits: tuple[float, float] | None = None
) -> tuple[Knob, ...]:
    """Return one knob per domain.

    Args:
        composition: Vectors and coefficients.
        limits: Lowest and highest coefficient; without them each knob reaches 1, 2 or 5 times a
            power of ten to both sides, as far as its tuning, its coefficient and its operator ask.

    Raises:
        CompositionError: There is one row per prompt, or the limits are no range that holds 0 and
            every coefficient.
    """
    if composition.per_row:
        raise CompositionError(
            "a console turns one setting",
            found="coefficients with one row per prompt",
            expected="one coefficient per domain",
            do="set it first: composition(0.5), composition(medical=0.5)",
        )
    ends = None if limits is None else _ends(limits)
    values = (float(f"{value:.6g}") for value in composition.coefficients[0].tolist())
    pairs = zip(composition.parts.items(), values, strict=True)
    return tuple(_knob(domain, part, value, ends) for (domain, part), value in pairs)


def _ends(limits: object) -> tuple[float, float]:
    if isinstance(limits, Sequence) and len(limits) == 2 and all(map(is_number, limits)):
        with suppress(OverflowError):  # an integer that no float can hold
            return float(limits[0]), float(limits[1])
    raise CompositionError(
        "this is no range of a knob",
        found=f"{type(limits).__name__} {limits!r}"[:120],
        expected="two numbers, the lowest and the highest coefficient",
        do="pass for instance range=(-2, 2), or leave it out",
    )


def _knob(domain: str, part: Part, value: float, limits: tuple[float, float] | None) -> Knob:
    operator = get_operator(part.operator)
    if limits is None:
        reach = _reach(part, value)
        return Knob(domain, max(-reach, operator.low), min(reach, operator.high), value)
    knob = Knob(domain, *limits, value)
    inside = operator.low <= knob.low <= min(0.0, value) and max(0.0, value) <= knob.high
    if not (inside and knob.high <= operator.high and 0.0 < knob.step < math.inf):
        raise CompositionError(
            f"the knob of {domain!r} cannot have this range",
            found=f"from {knob.low:g} to {knob.high:g}, with the coefficient {value:g}",
            expected=f"a range that holds 0, where the knob is off, and its coefficient, within "
            f"{operator.low:g} and {operator.high:g} for the operator {operator.name!r}",
            do="pass another range=(low, high), or set the coefficient: composition(0.0)",
        )
    return knob


def _reach(part: Part, value: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that is far enough."""
    tuned = 0.0 if part.vector.tuning is None else abs(part.vector.tuning.coefficient)
    needed = max(_ROOM * tuned or 1.0, abs(value))
    power = 10.0 ** math.floor(math.log10(needed))
    return next(n * power for n in (1.0, 2.0, 5.0, 10.0) if n * power >= needed * (1 - 1e-6))
