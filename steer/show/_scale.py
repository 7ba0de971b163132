"""Scales with round ticks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """The places of values along one axis: `low` is at `start`, `high` at `end`.

    With `root`, places are linear in the square root of a value, which is at least 0.
    """

    low: float
    high: float
    start: float
    end: float
    root: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        low, high, value = (self._inner(v) for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def _inner(self, value: float) -> float:
        return math.sqrt(max(value, 0.0)) if self.root else value

    @property
    def ticks(self) -> tuple[float, ...]:
        """Round values along the axis, from three to nine."""
        if self.root:
            return _root_ticks(self.high)
        raw = (self.high - self.low) / 5
        unit = 10.0 ** math.floor(math.log10(raw))
        step = next(s * unit for s in (1, 2, 2.5, 5, 10) if s * unit >= raw * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return tuple(k * step for k in range(first, last + 1))


def _root_ticks(high: float) -> tuple[float, ...]:
    """Return 0 and round values that lie about evenly on a square-root axis up to `high`."""
    found = [0.0]
    for share in (1 / 25, 4 / 25, 9 / 25, 16 / 25, 1.0):
        raw = high * share
        unit = 10.0 ** math.floor(math.log10(raw))
        value = max(s * unit for s in (1, 2, 3, 4, 5, 6, 8) if s * unit <= raw * (1 + 1e-9))
        if value > found[-1]:
            found.append(value)
    return tuple(found)


def around(values: Sequence[float], room: float = 0.06) -> tuple[float, float]:
    """Return limits that hold every finite value, with some room; 0 to 1 where there is none."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    least = 1e-6 * max(1.0, abs(low), abs(high))
    span = (high - low) if high - low > least else max(1.0, abs(high))
    return low - room * span, high + room * span
