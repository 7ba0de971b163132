"""What a strategy chose, where it chooses by itself, and how well its screen predicted."""

import math
from dataclasses import dataclass, replace

from steer.selection.setting import SettingResult


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
    """

    candidates: int
    kept: int
    pairs: int
    correlation: float = math.nan
    reasons: tuple[str, ...] = ()

    def measured(self, correlation: float) -> "Screened":
        """Return the same with its rank correlation.

        Args:
            correlation: The rank correlation.
        """
        return replace(self, correlation=correlation)

    def __str__(self) -> str:
        said = f"{self.candidates} candidates screened on {self.pairs} pairs, {self.kept} raced"
        if not math.isnan(self.correlation):
            said += f"; rank correlation of prediction and measurement {self.correlation:.2f}"
        if self.reasons:
            said += f"; raced without a prediction: {', '.join(self.reasons)}"
        return said


@dataclass(frozen=True, eq=False, slots=True)
class Outcome:
    """What a strategy chose.

    Args:
        candidate: Number of the candidate.
        best: The setting.
        screened: What the screen did; None without one.
    """

    candidate: int
    best: SettingResult
    screened: Screened | None = None
