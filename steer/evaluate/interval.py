"""A share of items and its confidence interval."""

from dataclasses import dataclass

_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Share:
    """How many of n items have a property.

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

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.1%} [{low:.1%}, {high:.1%}]"


def wilson(hits: int, n: int, z: float = _Z95) -> tuple[float, float]:
    """Return Wilson's score interval of a share.

    Args:
        hits: Items that have the property.
        n: All items, at least 1.
        z: Quantile of the normal distribution; 1.96 gives 95%.

    Returns:
        Lower and upper end, in [0, 1].
    """
    p = hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == n else min(1.0, centre + half)
    return low, high
