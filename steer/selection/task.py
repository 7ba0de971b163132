"""What a strategy is given: a candidate's settings, how to measure them, and how far it may go."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from steer.selection.limits import Limits
from steer.selection.setting import Rank, SettingResult
from steer.selection.space import Index, Space

Measure = Callable[[Sequence[tuple[float, ...]]], Sequence[SettingResult]]
_TOGETHER = 64  # settings handed to the kernel at once


class Task:
    """A search among the settings of one candidate; each setting is measured once.

    Args:
        space: The settings.
        measure: Measures some settings, given as coefficients.
        limits: What settings must keep.
        seed: Seed of whatever a strategy draws.
        budget: The most settings that are measured; None leaves it to the strategy.
        fingerprint: Identifies the request, so that a saved search is resumed by the same only;
            empty if nothing does: the objective has no name of its own.
        bar: A progress bar that counts settings.
    """

    def __init__(
        self,
        space: Space,
        measure: Measure,
        limits: Limits,
        *,
        seed: int = 0,
        budget: int | None = None,
        fingerprint: str = "",
        bar: Any = None,
    ) -> None:
        self.space, self.limits, self.seed = space, limits, seed
        self.budget, self.fingerprint = budget, fingerprint
        self.tried: dict[Index, SettingResult] = {}
        self.beside: list[SettingResult] = []  # settings that are not on the grid
        self.evaluated = 0
        self._measure, self._bar = measure, bar

    def evaluate(self, indices: Iterable[Index], most: int | None = None) -> list[Index]:
        """Measure settings that have not been measured.

        Args:
            indices: Settings; those outside the space and those known are passed over.
            most: How many at most; the rest is passed over too.

        Returns:
            Those that were measured now, in the order given.
        """
        new = list(islice(self._unknown(indices), most))
        for k in range(0, len(new), _TOGETHER):
            part = new[k : k + _TOGETHER]
            found = self._measure([self.space.coefficients(index) for index in part])
            self.tried |= dict(zip(part, found, strict=True))
            self._count(len(part))
        return new

    def add(self, results: Sequence[SettingResult]) -> None:
        """Take settings that a strategy measured itself, beside the grid.

        Args:
            results: What was measured.
        """
        self.beside.extend(results)
        self._count(len(results))

    def _count(self, settings: int) -> None:
        self.evaluated += settings
        if self._bar is not None:
            self._bar.update(settings)

    def _unknown(self, indices: Iterable[Index]) -> Iterator[Index]:
        """Yield what has not been measured, each once, without listing what comes after."""
        given: set[Index] = set()
        for index in indices:
            if index in self.space and index not in self.tried and index not in given:
                given.add(index)
                yield index

    def take(self, index: Index, result: SettingResult) -> None:
        """Take over what was measured by another process, or before an interruption.

        Args:
            index: The setting.
            result: What was measured.
        """
        self.tried.setdefault(index, result)

    def rank(self, index: Index) -> Rank:
        """Return what orders settings that were measured; greater is better.

        Args:
            index: A setting that was measured.
        """
        result = self.tried[index]
        return result.rank(self.limits.violation(result))

    def best(self, count: int) -> list[Index]:
        """Return the best settings measured, best first; ties go by the order of the grid.

        Args:
            count: How many.
        """
        return sorted(sorted(self.tried), key=self.rank, reverse=True)[:count]

    @property
    def results(self) -> list[SettingResult]:
        """Everything that was measured, in the order in which it was."""
        return [*self.tried.values(), *self.beside]
