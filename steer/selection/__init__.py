"""Choosing where and how strongly to steer, and coefficients of equal side effect."""

from steer.selection.calibration import Compared, calibrate, compare_at_kl
from steer.selection.held_out import HeldOutResult
from steer.selection.race import Race
from steer.selection.result import Selection
from steer.selection.run import select
from steer.selection.setting import Limits, SettingResult, worst_accuracy
from steer.selection.significance import Evidence
from steer.selection.space import Space
from steer.selection.strategy import CoarseToFine, Exhaustive, Strategy
from steer.selection.task import Field, Outcome, Task

__all__ = [
    "CoarseToFine",
    "Compared",
    "Evidence",
    "Exhaustive",
    "Field",
    "HeldOutResult",
    "Limits",
    "Outcome",
    "Race",
    "Selection",
    "SettingResult",
    "Space",
    "Strategy",
    "Task",
    "calibrate",
    "compare_at_kl",
    "select",
    "worst_accuracy",
]
