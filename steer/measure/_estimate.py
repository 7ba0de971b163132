"""Numbers measured over items, with their confidence intervals."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from steer.errors import SelectionError
from steer.measure._interval import estimate_row
from steer.show import Result, Row
from steer.show._text import plain

_NONE = (math.nan, math.nan)


@dataclass(frozen=True, slots=True, repr=False)
class Estimate(Result):
    """A number over items, with a 95% interval.

    Args:
        measure: What was measured, with unit and reduction.
        value: The number.
        interval: Its lower and upper end; NaN where a single item leaves it undefined.
        n: Number of items.
        items: The value of each item, where it has one.
    """

    measure: str
    value: float
    interval: tuple[float, float]
    n: int
    items: tuple[float, ...] = field(default=(), compare=False)

    @property
    def rows(self) -> list[Row]:
        """One row: measure, value, interval and n."""
        return [estimate_row(self.measure, self)]

    def __str__(self) -> str:
        low, high = self.interval
        shown = "no interval" if math.isnan(low) else f"{low:.4g}, {high:.4g}"
        return f"{self.value:.4g} [{shown}]"

    def __repr__(self) -> str:
        return f"Estimate({plain(self.measure, 240)}: {self}, n={self.n})"


def mean_of(measure: str, items: Sequence[float] | Tensor) -> Estimate:
    """Return the mean over items: x̄ ± t_{n−1} s / √n.

    Args:
        measure: What was measured, with unit and reduction.
        items: The value of each item.

    Raises:
        SelectionError: There are no items, or a value is not finite.
    """
    return ratio_of(measure, items, [1.0] * len(items))


def ratio_of(
    measure: str, numerators: Sequence[float] | Tensor, denominators: Sequence[float] | Tensor
) -> Estimate:
    """Return r = Σ x / Σ y over items, for instance nats per token over texts of unequal length.

    r ± t_{n−1} √(Σ (x − r y)² / (n (n − 1))) / ȳ, the linearised error: items vary, not their
    tokens.
    """
    x = torch.as_tensor(numerators, dtype=torch.float64).cpu()
    y = torch.as_tensor(denominators, dtype=torch.float64).cpu()
    n = len(x)
    if not n or not bool(torch.isfinite(x).all()):
        raise SelectionError(
            f"{measure} cannot be averaged",
            found=f"{n} items, {int((~torch.isfinite(x)).sum())} of them not finite",
            expected="at least one item, all finite",
            do="check the data that it was measured on",
        )
    value = float(x.sum() / y.sum())
    items = tuple((x / y).tolist())
    if n < 2:
        return Estimate(measure, value, _NONE, n, items)
    error = float(((x - value * y).square().sum() / (n * (n - 1))).sqrt() / y.mean())
    return Estimate(measure, value, _spread(value, error, n - 1), n, items)


def jackknife(
    measure: str, value: float, without: Sequence[float] | Tensor, limits: tuple[float, float]
) -> Estimate:
    """Return a smooth statistic θ of n items with its jackknife interval, cut to its limits.

    θ ± t_{n−1} √((n − 1)/n Σ (θ₋ᵢ − θ̄)²), where `without` holds θ₋ᵢ, the statistic without item i.
    """
    left = torch.as_tensor(without, dtype=torch.float64).cpu()
    n = len(left)
    if n < 2 or not bool(torch.isfinite(left).all()) or math.isnan(value):
        return Estimate(measure, value, _NONE, n)
    error = float(((n - 1) / n * (left - left.mean()).square().sum()).sqrt())
    return within(Estimate(measure, value, _spread(value, error, n - 1), n), *limits)


def student(freedom: int) -> float:
    """Return the 97.5% quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def within(estimate: Estimate, low: float, high: float) -> Estimate:
    """Return an estimate with its interval cut to the values that its number can take."""
    if math.isnan(estimate.interval[0]):
        return estimate
    ends = (max(low, estimate.interval[0]), min(high, estimate.interval[1]))
    return replace(estimate, interval=ends)


def mapped(estimate: Estimate, measure: str, function: Callable[[float], float]) -> Estimate:
    """Return an increasing function of an estimate, applied to its value, interval and items."""
    low, high = (function(end) for end in estimate.interval)
    items = tuple(function(item) for item in estimate.items)
    return Estimate(measure, function(estimate.value), (low, high), estimate.n, items)


def _spread(value: float, error: float, freedom: int) -> tuple[float, float]:
    """Return value ± t · error."""
    half = student(freedom) * error
    return value - half, value + half
