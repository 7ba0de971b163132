"""The knobs of a composition: their ranges and where they stand."""

import math
from dataclasses import dataclass

from steer.composition import Composition, Part
from steer.errors import CompositionError
from steer.operator import get_operator

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
        CompositionError: There is one row per prompt, or a coefficient outside the limits.
    """
    if composition.per_row:
        raise CompositionError(
            "a console turns one setting",
            found="coefficients with one row per prompt",
            expected="one coefficient per domain",
            do="set it first: composition(0.5), composition(medical=0.5)",
        )
    values = composition.coefficients[0].tolist()
    pairs = zip(composition.parts.items(), values, strict=True)
    return tuple(_knob(domain, part, float(value), limits) for (domain, part), value in pairs)


def _knob(domain: str, part: Part, value: float, limits: tuple[float, float] | None) -> Knob:
    operator = get_operator(part.operator)
    if limits is None:
        reach = _reach(part, value)
        low, high = max(-reach, operator.low), min(reach, operator.high)
        return Knob(domain, low, high, float(f"{value:.6g}"))
    low, high = limits
    finite = math.isfinite(low) and math.isfinite(high)
    if not (finite and operator.low <= low <= value <= high <= operator.high and low < high):
        raise CompositionError(
            f"the knob of {domain!r} cannot have this range",
            found=f"from {low:g} to {high:g}, with the coefficient {value:g}",
            expected=f"a range that holds its coefficient, within {operator.low:g} and "
            f"{operator.high:g} for the operator {operator.name!r}",
            do="pass another range=(low, high), or set the coefficient: composition(0.0)",
        )
    return Knob(domain, low, high, float(f"{value:.6g}"))


def _reach(part: Part, value: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that is far enough."""
    tuned = 0.0 if part.vector.tuning is None else abs(part.vector.tuning.coefficient)
    needed = max(_ROOM * tuned or 1.0, abs(value))
    power = 10.0 ** math.floor(math.log10(needed))
    return next(n * power for n in (1.0, 2.0, 5.0, 10.0) if n * power >= needed * (1 - 1e-6))
