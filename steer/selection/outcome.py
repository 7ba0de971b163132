"""What a strategy chose, where it chooses by itself, and how well its screen predicted."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from steer.selection.setting import SettingResult

_NAMED = 4  # candidates of one reason that are named


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
    """

    candidate: int
    best: SettingResult
    screened: Screened | None = None
