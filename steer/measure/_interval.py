"""Shares of items, how a share changes between two conditions, and their confidence intervals."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from steer.show import Result, Row

Z95 = 1.959963984540054  # the 97.5% quantile of the normal distribution


class Measured(Protocol):
    """A number with its 95% interval and the count of items behind it."""

    @property
    def value(self) -> float:
        """The number."""

    @property
    def interval(self) -> tuple[float, float]:
        """The lower and upper end of the interval; NaN where it is undefined."""

    @property
    def n(self) -> int:
        """The number of items."""


class Headline(Result):
    """A result with one main number, whose value and interval are its own."""

    __slots__ = ()

    @property
    @abstractmethod
    def _headline(self) -> Measured:
        """The main number."""

    @property
    def value(self) -> float:
        """The main number of this result."""
        return self._headline.value

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of `value`."""
        return self._headline.interval


def estimate_row(measure: str, found: Measured) -> Row:
    """Return the columns of a measured number: measure, value, low, high and n."""
    low, high = found.interval
    return {"measure": measure, "value": found.value, "low": low, "high": high, "n": found.n}


@dataclass(frozen=True, slots=True, repr=False)
class Share(Result):
    """The share of n items that have a property.

    Args:
        hits: Items that have it.
        n: All items.
    """

    hits: int
    n: int

    @property
    def value(self) -> float:
        """The share, in [0, 1]."""
        return self.hits / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% Wilson interval."""
        return wilson(self.hits, self.n)

    @property
    def rows(self) -> list[Row]:
        """One row: value, interval and n."""
        return [estimate_row("share", self)]

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.1%} [{low:.1%}, {high:.1%}]"

    def __repr__(self) -> str:
        return f"Share(hits={self.hits}, n={self.n})"


@dataclass(frozen=True, slots=True, repr=False)
class ShareChange(Result):
    """The change of a share between two conditions measured on the same items.

    Args:
        kept: Items that have the property before and after.
        gained: Items that have it after only.
        lost: Items that had it before only.
        never: Items that have it neither time.
    """

    kept: int
    gained: int
    lost: int
    never: int

    @classmethod
    def of(cls, before: Sequence[bool], after: Sequence[bool]) -> "ShareChange":
        """Return the change between two lists of hits.

        Args:
            before: For each item, whether it had the property before.
            after: The same after, in the same order.
        """
        seen = list(zip(before, after, strict=True))
        kept, gained, lost = (
            seen.count(both) for both in ((True, True), (False, True), (True, False))
        )
        return cls(kept, gained, lost, len(seen) - kept - gained - lost)

    @property
    def n(self) -> int:
        """All items."""
        return self.kept + self.gained + self.lost + self.never

    @property
    def before(self) -> Share:
        """The share before."""
        return Share(self.kept + self.lost, self.n)

    @property
    def after(self) -> Share:
        """The share after."""
        return Share(self.kept + self.gained, self.n)

    @property
    def value(self) -> float:
        """Share after minus share before, in [−1, 1]."""
        return (self.gained - self.lost) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of Newcombe's method 10 for paired shares (Statist. Med. 17, 2635).

        It combines both Wilson intervals through the correlation of the items, and has a width
        even where no item changed.
        """
        after, before = self.after, self.before
        (l1, u1), (l2, u2) = after.interval, before.interval
        p1, p2, phi = after.value, before.value, self._correlation
        below, above = (p1 - l1, u2 - p2), (u1 - p1, p2 - l2)
        low, high = (max(0.0, a * a - 2 * phi * a * b + b * b) ** 0.5 for a, b in (below, above))
        return max(-1.0, self.value - low), min(1.0, self.value + high)

    @property
    def rows(self) -> list[Row]:
        """One row: value, interval and n."""
        return [estimate_row("change of share", self)]

    @property
    def _correlation(self) -> float:
        """The φ of the four counts, with a continuity correction."""
        n, (x, y) = self.n, (self.after.hits, self.before.hits)
        margins = x * (n - x) * y * (n - y)
        if not margins:
            return 0.0
        determinant = float(self.kept * self.never - self.gained * self.lost)
        if determinant > 0:
            determinant = max(0.0, determinant - n / 2)
        return determinant / float(margins**0.5)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:+.1%} [{low:+.1%}, {high:+.1%}]"

    def __repr__(self) -> str:
        return f"ShareChange({self}, n={self.n})"


@lru_cache(maxsize=4096)  # scipy takes a millisecond, and n items have n + 1 shares
def wilson(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a share.

    Args:
        hits: Items that have the property.
        n: All items, at least 1.
        confidence: Confidence level of the interval, in (0, 1).

    Returns:
        Lower and upper end, in [0, 1].
    """
    from scipy.stats import binomtest

    low, high = binomtest(hits, n).proportion_ci(confidence, method="wilson")
    return float(low), float(high)
