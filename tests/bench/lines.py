"""One figure: what was measured, its interval, its limit, and what that means."""

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

PRECISION = 0.01  # relative half-width of an interval at which measuring stops
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Limit:
    """What a figure must not exceed, or must reach.

    Args:
        value: The limit, in the figure's unit.
        kind: Whether the figure must be at most or at least that.
    """

    value: float
    kind: Literal["at most", "at least"] = "at most"

    def keeps(self, x: float) -> bool:
        """Return whether a value is within the limit."""
        return x <= self.value if self.kind == "at most" else x >= self.value

    def __str__(self) -> str:
        return f"{'≤' if self.kind == 'at most' else '≥'} {self.value:g}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median and its 95% interval."""

    median: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the width of the interval, relative to the median."""
        return (self.high - self.low) / 2 / abs(self.median) if self.median else math.inf


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the output.

    Args:
        name: The figure's name, `group.figure`.
        what: What is compared, in words.
        estimate: The figure.
        rounds: Rounds measured; 1 for what does not vary.
        limit: What it must keep to; None for figures that stand beside.
        unit: Unit after the number; empty for ratios.
        note: More, on a line below.
        samples: The samples that the estimate is made from.
    """

    name: str
    what: str
    estimate: Estimate
    rounds: int
    limit: Limit | None = None
    unit: str = ""
    note: str = ""
    samples: tuple[float, ...] = field(default=(), repr=False)

    @property
    def status(self) -> Literal["ok", "short", "unresolved", ""]:
        """Return how the figure stands to its limit; nothing for a figure without one.

        `ok`: the whole interval is within the limit. `short`: the whole interval is beyond it, or
        the estimate is and the interval is as narrow as was asked for. Otherwise `unresolved`.
        """
        if self.limit is None:
            return ""
        within = [self.limit.keeps(x) for x in (self.estimate.low, self.estimate.high)]
        if all(within):
            return "ok"
        beyond = not self.limit.keeps(self.estimate.median)
        if not any(within) or (beyond and self.estimate.half_width <= PRECISION):
            return "short"
        return "unresolved"


def estimate(samples: Sequence[float], seed: int = 0) -> Estimate:
    """Return the median of some samples with its 95% bootstrap interval.

    Args:
        samples: At least one.
        seed: Seed of the resampling.
    """
    draw = random.Random(seed)
    n = len(samples)
    medians = sorted(statistics.median(draw.choices(samples, k=n)) for _ in range(_RESAMPLES))
    low, high = medians[int(0.025 * _RESAMPLES)], medians[int(0.975 * _RESAMPLES) - 1]
    return Estimate(statistics.median(samples), low, high)


def exact(value: float) -> Estimate:
    """Return a value that does not vary as an estimate."""
    return Estimate(value, value, value)
