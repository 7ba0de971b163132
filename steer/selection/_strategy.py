"""How settings are searched: anything with one method, by name or as an object."""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from steer.errors import SelectionError
from steer.selection._race import Race
from steer.selection._space import Index, Space
from steer.selection._task import Field, Outcome, Task


class Strategy(Protocol):
    """A way to search: it measures settings through the tasks until it is content."""

    def search(self, tasks: Sequence[Task], field: Field) -> Outcome | None:
        """Measure settings.

        Args:
            tasks: One for each candidate; `task.evaluate` measures, `task.rank` orders.
            field: The candidates, and what they are measured on.

        Returns:
            What was chosen; None leaves the choice to the order of `SettingResult.rank`.
        """


@dataclass(frozen=True, slots=True)
class Exhaustive:
    """Every setting of every candidate, in order, as far as the budget goes."""

    def search(self, tasks: Sequence[Task], field: Field | None = None) -> None:
        """Measure every setting.

        Args:
            tasks: One for each candidate.
            field: Not needed.
        """
        left = tasks[0].budget
        for task in tasks:
            done = len(task.evaluate(task.space, left))
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
        budget: The most settings tried, where the call says nothing.
    """

    values: int = 5
    beam: int = 6
    budget: int = 256

    def search(self, tasks: Sequence[Task], field: Field | None = None) -> None:
        """Measure settings until the best have no better neighbour, candidate by candidate.

        Args:
            tasks: One for each candidate; the budget is that of each.
            field: Not needed.
        """
        for task in tasks:
            self._search(task)

    def _search(self, task: Task) -> None:
        left = self.budget if task.budget is None else task.budget
        draw = random.Random(task.seed)
        coarse, steps = self._coarse(task.space, left, draw)
        left -= len(task.evaluate(coarse, left))
        while left > 0 and task.tried:
            near = self._near(task, steps)
            draw.shuffle(near)
            done = len(task.evaluate(near, left))
            left -= done
            if not done:
                if max(steps) == 1:
                    break
                steps = [max(1, step // 2) for step in steps]

    def _near(self, task: Task, steps: list[int]) -> list[Index]:
        """Return the neighbours of the best settings that are still to be tried."""
        found = (near for centre in task.best(self.beam) for near in neighbours(centre, steps))
        return [i for i in dict.fromkeys(found) if i in task.space and i not in task.tried]

    def _coarse(
        self, space: Space, budget: int, draw: random.Random
    ) -> tuple[list[Index], list[int]]:
        """Return the coarse grid and its steps; random settings where it would be too large."""
        values = min(self.values, int((max(budget, 2) / 2) ** (1 / len(space.axes)) + 1e-9))
        if values < 2:
            found = [tuple(draw.randrange(n) for n in space.shape) for _ in range(budget // 2 or 1)]
            return found, [max(1, n // 4) for n in space.shape]
        steps = [max(1, -(-n // values)) for n in space.shape]
        axes = []
        for n, step in zip(space.shape, steps, strict=True):
            rest = (n - 1) % step
            axes.append(range(draw.randint(0, rest), n, step))
        return list(itertools.product(*axes)), [max(1, step // 2) for step in steps]


def neighbours(centre: Index, steps: list[int]) -> Iterator[Index]:
    """Yield settings one step away: in one domain, or up in one and down in another."""
    domains = range(len(centre))
    for k, sign in itertools.product(domains, (-1, 1)):
        yield _moved(centre, {k: sign * steps[k]})
    for a, b in itertools.permutations(domains, 2):
        yield _moved(centre, {a: steps[a], b: -steps[b]})


def _moved(centre: Index, by: dict[int, int]) -> Index:
    return tuple(i + by.get(k, 0) for k, i in enumerate(centre))


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "race": Race,
    "exhaustive": Exhaustive,
    "coarse_to_fine": CoarseToFine,
}


def strategy_of(strategy: str | Strategy) -> Strategy:
    """Return a strategy."""
    if not isinstance(strategy, str):
        return strategy
    if strategy not in STRATEGIES:
        raise SelectionError(
            "unknown strategy",
            found=repr(strategy),
            expected=f"{' | '.join(STRATEGIES)}, or an object with a method search(tasks, field)",
            do="strategy='race' for alternatives, 'coarse_to_fine' for several domains",
        )
    return STRATEGIES[strategy]()
