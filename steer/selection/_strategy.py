"""Strategies of a search: objects with one method, some of them known by name."""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from steer._check import one_of
from steer.measure._grid import Row
from steer.selection._field import Field, Grid, Outcome
from steer.selection._race import Race

Index = tuple[int, ...]  # which value of each domain


class Strategy(Protocol):
    """A way to search the settings of a field."""

    def search(self, field: Field) -> Outcome | None:
        """Measure settings.

        Args:
            field: The candidates, and what they are measured on; `field.evaluate` measures,
                `field.best` orders.

        Returns:
            What was chosen; None leaves the choice to the order of `SettingResult.rank`.
        """


@dataclass(frozen=True, slots=True)
class Exhaustive:
    """Every setting of every candidate, in order, as far as the budget goes."""

    def search(self, field: Field) -> None:
        """Measure every setting; see `Strategy.search`."""
        left = field.budget
        for k in range(len(field.candidates)):
            done = len(field.evaluate(itertools.product(*field.grid), left, candidate=k))
            left = None if left is None else left - done


@dataclass(frozen=True, slots=True)
class CoarseToFine:
    """A coarse grid; then neighbours of the best settings, with steps that are halved.

    A neighbour differs in one domain, or in two of which one rises and the other falls, since
    vectors of related domains can stand in for each other. A step is halved when the best
    settings have no neighbour left to try, and the search ends so at the smallest, or with the
    budget. The seed shifts the coarse grid and orders neighbours where the budget ends.

    Args:
        values: Most values of one domain in the coarse grid; fewer where that would take more
            than half of the budget.
        beam: Settings whose neighbours are tried at each step.
        budget: The most settings tried, where the call names no budget.
    """

    values: int = 5
    beam: int = 6
    budget: int = 256

    def search(self, field: Field) -> None:
        """Measure settings until the best have no better neighbour; see `Strategy.search`."""
        for k in range(len(field.candidates)):
            self._search(field, k)

    def _search(self, field: Field, k: int) -> None:
        left, grid = self.budget if field.budget is None else field.budget, field.grid
        draw = random.Random(field.seed)
        coarse, steps = self._coarse([len(axis) for axis in grid], left, draw)
        left -= len(field.evaluate(_rows(grid, coarse), left, candidate=k))
        while left > 0 and field.tried[k]:
            best = [
                tuple(axis.index(c) for axis, c in zip(grid, row, strict=True))
                for row in field.best(self.beam, candidate=k)
            ]
            near = dict.fromkeys(i for centre in best for i in _neighbours(centre, steps))
            rows = [row for row in _rows(grid, near) if row not in field.tried[k]]
            draw.shuffle(rows)
            done = len(field.evaluate(rows, left, candidate=k))
            left -= done
            if not done:
                if max(steps) == 1:
                    break
                steps = [max(1, step // 2) for step in steps]

    def _coarse(
        self, shape: Sequence[int], budget: int, draw: random.Random
    ) -> tuple[list[Index], list[int]]:
        """Return the coarse grid and its steps; random settings where it would be too large."""
        values = min(self.values, int((max(budget, 2) / 2) ** (1 / len(shape)) + 1e-9))
        if values < 2:
            found = [tuple(draw.randrange(n) for n in shape) for _ in range(budget // 2 or 1)]
            return found, [max(1, n // 4) for n in shape]
        steps = [max(1, -(-n // values)) for n in shape]
        axes = [
            range(draw.randint(0, (n - 1) % step), n, step)
            for n, step in zip(shape, steps, strict=True)
        ]
        return list(itertools.product(*axes)), [max(1, step // 2) for step in steps]


def _rows(grid: Grid, indices: Iterable[Index]) -> Iterator[Row]:
    """Yield the coefficients at indices, of which some may lie outside of the grid."""
    for index in indices:
        if all(0 <= i < len(axis) for i, axis in zip(index, grid, strict=True)):
            yield tuple(axis[i] for i, axis in zip(index, grid, strict=True))


def _neighbours(centre: Index, steps: Sequence[int]) -> Iterator[Index]:
    """Yield settings one step away: in one domain, or up in one and down in another."""
    domains = range(len(centre))
    single = [{k: sign * steps[k]} for k, sign in itertools.product(domains, (-1, 1))]
    double = [{a: steps[a], b: -steps[b]} for a, b in itertools.permutations(domains, 2)]
    for by in (*single, *double):
        yield tuple(i + by.get(k, 0) for k, i in enumerate(centre))


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "race": Race,
    "exhaustive": Exhaustive,
    "coarse_to_fine": CoarseToFine,
}


def strategy_of(strategy: str | Strategy) -> Strategy:
    """Return a strategy, by name or itself."""
    if not isinstance(strategy, str):
        return strategy
    known: str = one_of("strategy", strategy, STRATEGIES, do="or pass an object with search(field)")
    return STRATEGIES[known]()
