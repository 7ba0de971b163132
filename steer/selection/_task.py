"""What a strategy is given, and what it returns."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from steer.measure import Judge, NeutralText
from steer.measure._reduce import Reduce
from steer.model import Model
from steer.pairs import Pairs
from steer.selection._candidates import Candidate
from steer.selection._evaluator import Evaluator
from steer.selection._setting import Limits, Objective, Rank, SettingResult
from steer.selection._space import Index, Space

Measure = Callable[[Sequence[tuple[float, ...]]], Sequence[SettingResult]]
_NAMED = 4  # candidates of one reason that are named
_TOGETHER = 64  # settings handed to the kernel at once


class Task:
    """A search among the settings of one candidate; each setting is measured once.

    Args:
        space: The settings.
        measure: Measures some settings, given as coefficients.
        limits: What settings must keep.
        seed: Seed of whatever a strategy draws.
        budget: The most settings that are measured; None leaves it to the strategy.
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
        bar: Any = None,
    ) -> None:
        self.space, self.limits, self.seed = space, limits, seed
        self.budget = budget
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


@dataclass(frozen=True, eq=False, slots=True)
class Field:
    """The candidates of a selection, and what they are measured on.

    Args:
        model: The model.
        candidates: What there is to choose from.
        pairs: Validation pairs by domain.
        moved: The domains that are asked to move.
        limits: What a setting must keep.
        objective: What is to be large, of the numbers of the domains that are asked to move.
        reduce: Score answers by the mean or the sum of their tokens' log-probabilities.
        fisher: Neutral text that the screen estimates KL on.
        text: Neutral text that settings are measured on; None to measure no KL.
        judge: A judge of answers, and the label that is wanted; None without one.
        seed: Seed of whatever is drawn.
        progress: Whether to show progress bars.
        both_ways: Whether the negated setting counts too, on swapped pairs.
    """

    model: Model
    candidates: tuple[Candidate, ...]
    pairs: Mapping[str, Pairs]
    moved: tuple[str, ...]
    limits: Limits
    objective: Objective
    reduce: Reduce
    fisher: NeutralText | None
    text: NeutralText | None
    judge: tuple[Judge, str | None] | None
    seed: int
    progress: bool
    both_ways: bool

    def evaluator(
        self, pairs: Mapping[str, Pairs], text: NeutralText | None, *, progress: bool = False
    ) -> Evaluator:
        """Return what measures settings.

        Args:
            pairs: Pairs by domain.
            text: Neutral text; None to measure no side effects.
            progress: Whether to show a bar that counts settings.
        """
        return Evaluator(
            self.model,
            pairs,
            self.moved,
            self.objective,
            text,
            self.reduce,
            both_ways=self.both_ways,
            progress=progress,
        )


@dataclass(frozen=True, slots=True)
class Screened:
    """What the screen did.

    Args:
        candidates: Candidates that it predicted.
        kept: How many of them entered the race.
        pairs: Validation pairs that it saw.
        correlation: Spearman's rank correlation, over the candidates that were raced, of the
            predicted gain with the one measured at equal KL on pairs the screen did not see; NaN
            where there were no such pairs.
        reasons: Why other candidates entered without a prediction.
        dropped: Candidates that did not enter, and why each did not.
    """

    candidates: int
    kept: int
    pairs: int
    correlation: float = math.nan
    reasons: tuple[str, ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        said = f"{self.candidates} candidates screened on {self.pairs} pairs, {self.kept} raced"
        if not math.isnan(self.correlation):
            said += f"; rank correlation of prediction and measurement {self.correlation:.2f}"
        if self.reasons:
            said += f"; raced without a prediction: {', '.join(self.reasons)}"
        for why in sorted({*self.dropped.values()}):
            names = [name for name, reason in self.dropped.items() if reason == why]
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            said += f"; not raced: {', '.join(names[:_NAMED])}{more} ({why})"
        return said


@dataclass(frozen=True, eq=False, slots=True)
class Outcome:
    """What a strategy chose.

    Args:
        candidate: Number of the candidate.
        best: The setting.
        screened: What the screen did; None without one.
        why: Why it was preferred to the setting that ranks first; empty if it is that one.
    """

    candidate: int
    best: SettingResult
    screened: Screened | None = None
    why: str = ""
