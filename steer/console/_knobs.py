"""The knobs of a composition: their ranges and where they stand."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from steer._check import as_list, number
from steer.algebra import Composition, Part, get_operator
from steer.errors import ArgumentError, CompositionError

_STEPS = 40  # from one end of a slider to the other
_ROOM = 1.25  # of a range above the coefficient that was chosen


@dataclass(frozen=True, slots=True)
class Knob:
    """The range and the coefficient of one domain, all dimensionless."""

    domain: str
    low: float
    high: float
    value: float

    @property
    def step(self) -> float:
        """What one press of a key changes."""
        return (self.high - self.low) / _STEPS


def knobs_of(composition: Composition, limits: Iterable[float] | None = None) -> tuple[Knob, ...]:
    """Return one knob for each domain, in the same range or each as far as its vector asks.

    Raises:
        ArgumentError: The limits are no range with 0 and every coefficient in it.
        CompositionError: There is one row per prompt.
    """
    if composition.per_row:
        raise CompositionError(
            "a console turns one setting",
            found="coefficients with one row per prompt",
            expected="one coefficient per domain",
            do="set it first: composition(0.5), composition(medical=0.5)",
        )
    ends = None if limits is None else [number("range", end) for end in as_list("range", limits)]
    values = (float(f"{value:.6g}") for value in composition.coefficients[0].tolist())
    pairs = zip(composition.parts.items(), values, strict=True)
    return tuple(_knob(domain, part, value, ends) for (domain, part), value in pairs)


def _knob(domain: str, part: Part, value: float, ends: list[float] | None) -> Knob:
    operator = get_operator(part.operator)
    if ends is None:
        reach = _reach(part, value)
        return Knob(domain, max(-reach, operator.low), min(reach, operator.high), value)
    low, high = ends if len(ends) == 2 else (math.inf, -math.inf)  # which nothing fits between
    knob = Knob(domain, low, high, value)
    inside = operator.low <= low <= min(0.0, value) and max(0.0, value) <= high <= operator.high
    if inside and 0.0 < knob.step < math.inf:
        return knob
    raise ArgumentError(
        f"the knob of {domain!r} cannot have this range",
        found=f"range={ends}, with the coefficient {value:g}",
        expected="the lowest and the highest coefficient, with 0, where the knob is off, and its "
        f"coefficient between them, within {operator.low:g} and {operator.high:g} for the "
        f"operator {operator.name!r}",
        do="pass for instance range=(-2, 2), or set the coefficient: composition(0.0)",
    )


def _reach(part: Part, value: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that is far enough."""
    tuned = 0.0 if part.vector.tuning is None else abs(part.vector.tuning.coefficient)
    needed = max(_ROOM * tuned or 1.0, abs(value))
    power = 10.0 ** math.floor(math.log10(needed))
    return next(n * power for n in (1.0, 2.0, 5.0, 10.0) if n * power >= needed * (1 - 1e-6))
