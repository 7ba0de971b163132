"""The input and output of a strategy: candidates with a grid of coefficients, and a choice."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from steer._progress import progress_bar
from steer.algebra import Composition
from steer.algebra._coefficients import number
from steer.errors import SelectionError
from steer.measure import Judge, NeutralText
from steer.measure._grid import Axes, Row, axes_of
from steer.selection._candidates import Candidate
from steer.selection._setting import Limits, Rank, SettingResult

Grid = tuple[tuple[float, ...], ...]  # for each domain the values to try, ascending
_NAMED = 4  # candidates of one reason that are named
_TOGETHER = 64  # settings handed to the kernel at once


def grid_of(composition: Composition, coefficients: Axes) -> Grid:
    """Return the values to try, ascending and different, for each domain of a composition."""
    each = axes_of(composition.domains, coefficients, least=1)
    axes = tuple(tuple(sorted({number(c) + 0.0 for c in values})) for values in each)
    for place in (0, -1):
        composition([axis[place] for axis in axes])  # refuses what an operator does not take
    return axes


class Field:
    """The candidates of a search, a grid of coefficients for each, and every result so far.

    Args:
        candidates: The alternatives.
        grid: For each domain the coefficients to try, ascending; the same for every candidate.
        evaluator: Measures settings, each a candidate with coefficients.
        limits: Side effects that a setting must not exceed.
        fisher: Neutral text on which the screen estimates the KL.
        report: Neutral text on which the KL of the choice is reported.
        judge: A judge of answers and the label wanted; None without one.
        seed: Seed of random draws.
        budget: The most settings that are measured; None leaves it to the strategy.
        progress: Whether to show progress bars.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        grid: Grid,
        evaluator: Callable[..., Sequence[SettingResult]],
        limits: Limits,
        *,
        fisher: NeutralText | None = None,
        report: NeutralText | None = None,
        judge: tuple[Judge, str | None] | None = None,
        seed: int = 0,
        budget: int | None = None,
        progress: bool = False,
    ) -> None:
        self.candidates, self.grid = tuple(candidates), grid
        self.evaluator: Any = evaluator
        self.limits, self.judge = limits, judge
        self.fisher, self.report = fisher, report
        self.seed, self.budget, self.progress = seed, budget, progress
        self.results: list[tuple[int, SettingResult]] = []
        self.tried: tuple[dict[Row, SettingResult], ...] = tuple({} for _ in candidates)
        self._bar: Any = None

    def counting(self, total: float | None) -> Any:
        """Return a context with a bar that counts settings.

        Args:
            total: How many there are; None shows no bar.
        """
        progress = total is not None and self.progress
        self._bar = progress_bar(progress=progress, total=total, desc="select", unit="setting")
        return self._bar

    def evaluate(
        self, rows: Iterable[Row], most: int | None = None, *, candidate: int = 0
    ) -> list[Row]:
        """Measure those settings of a candidate that have no result yet.

        Args:
            rows: Coefficients by domain; those with a result are skipped.
            most: The most settings to measure; no more are taken from the rows.
            candidate: Number of the candidate.

        Returns:
            The newly measured settings, in the order given.
        """
        one, tried = self.candidates[candidate], self.tried[candidate]
        fresh: dict[Row, None] = {}
        unknown = (row for row in rows if row not in tried and row not in fresh)
        for row in islice(unknown, most):
            fresh[row] = None
        new = list(fresh)
        for k in range(0, len(new), _TOGETHER):
            part = new[k : k + _TOGETHER]
            found = self.evaluator([(one, row) for row in part])
            tried |= dict(zip(part, found, strict=True))
            self.add(candidate, found)
        return new

    def add(self, candidate: int, results: Sequence[SettingResult]) -> None:
        """Record results that a strategy measured itself.

        Args:
            candidate: Number of the candidate.
            results: The results.
        """
        self.results.extend((candidate, result) for result in results)
        if self._bar is not None:
            self._bar.update(len(results))

    def best(self, count: int, *, candidate: int = 0) -> list[Row]:
        """Return the best settings measured, best first; ties go to the smaller coefficients.

        Args:
            count: How many.
            candidate: Number of the candidate.
        """
        tried = self.tried[candidate]
        return sorted(sorted(tried), key=lambda row: self._rank(tried[row]), reverse=True)[:count]

    def _rank(self, result: SettingResult) -> Rank:
        return result.rank(self.limits.violation(result))

    def chosen(self) -> "Outcome":
        """Return the best setting that was measured.

        Raises:
            SelectionError: None was, none has finite numbers, or none keeps the limits.
        """
        finite = [found for found in self.results if found[1].finite and found[1].complete]
        if not finite:
            raise SelectionError(
                "no setting has finite numbers" if self.results else "no setting was measured",
                found=f"{len(self.results)} settings measured",
                expected="at least one at which scores, objective and side effects are finite",
                do="try smaller coefficients, and look at what the objective returns",
            )
        candidate, best = max(finite, key=lambda found: self._rank(found[1]))
        if self.limits.violation(best) == 0:
            return Outcome(candidate, best)
        over = self.limits.excess(best)
        exceeds = ", ".join(f"{name} by {by:.3g}" for name, by in over.items() if by > 0)
        raise SelectionError(
            "no setting keeps the limits",
            found=f"{len(self.results)} settings measured; closest {best.at}, which exceeds "
            f"{exceeds}",
            expected=", ".join(f"{name} at most {getattr(self.limits, name):g}" for name in over),
            do="try smaller coefficients, a larger budget, or allow more",
        )


@dataclass(frozen=True, slots=True)
class Screened:
    """How many candidates the screen predicted, kept for the race, and on how many pairs.

    `correlation` is Spearman's, over the candidates that were raced, of the predicted gain with the
    one measured at equal KL on pairs that the screen did not see; `reasons` say why others entered
    without a prediction, `dropped` why some did not enter.
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
    """The choice of a strategy.

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
