"""The settings that a search may try: a value of each domain's coefficient."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from steer._check import as_list
from steer.algebra import Composition
from steer.algebra._coefficients import coefficient_rows, number
from steer.errors import SelectionError

Index = tuple[int, ...]  # which value of each domain
Axes = Sequence[float] | Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Space:
    """Every combination of some values by domain.

    Args:
        domains: Names of the coefficients.
        axes: For each domain the values to try, ascending and different, dimensionless.
    """

    domains: tuple[str, ...]
    axes: tuple[tuple[float, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values of each domain."""
        return tuple(map(len, self.axes))

    def __len__(self) -> int:
        return math.prod(self.shape)

    def __iter__(self) -> Iterator[Index]:
        return itertools.product(*map(range, self.shape))

    def __contains__(self, index: object) -> bool:
        return isinstance(index, tuple) and all(
            0 <= i < n for i, n in zip(index, self.shape, strict=True)
        )

    def coefficients(self, index: Index) -> tuple[float, ...]:
        """Return the coefficients of a setting.

        Args:
            index: Which value of each domain.
        """
        return tuple(axis[i] for axis, i in zip(self.axes, index, strict=True))


def space_of(composition: Composition, coefficients: Axes) -> Space:
    """Return the settings of a composition."""
    domains = composition.domains
    if isinstance(coefficients, Mapping):
        coefficient_rows(dict.fromkeys(coefficients, 0.0), domains)  # refuses unknown domains
        each = [as_list(f"coefficients of {d!r}", coefficients.get(d, (0.0,))) for d in domains]
    else:
        each = [as_list("coefficients", coefficients)] * len(domains)
    axes = tuple(tuple(sorted({number(c) + 0.0 for c in values})) for values in each)
    if not all(axes):
        raise SelectionError(
            "there is nothing to choose from",
            found=f"{coefficients!r}",
            expected="at least one coefficient for each domain",
            do="give for instance coefficients=(-1, -0.5, 0, 0.5, 1)",
        )
    for place in (0, -1):
        composition([axis[place] for axis in axes])  # refuses what an operator does not take
    return Space(domains, axes)
