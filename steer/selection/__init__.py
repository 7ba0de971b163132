"""Choosing where and how strongly to steer, and coefficients of equal side effect."""

from steer.selection._calibration import Compared, calibrate, compare_at_kl
from steer.selection._confirm import HeldOutResult
from steer.selection._field import Field, Outcome
from steer.selection._race import Race
from steer.selection._result import Selection
from steer.selection._select import select
from steer.selection._setting import Limits, SettingResult, worst_accuracy
from steer.selection._significance import Evidence
from steer.selection._strategy import CoarseToFine, Exhaustive, Strategy

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
    "Strategy",
    "calibrate",
    "compare_at_kl",
    "select",
    "worst_accuracy",
]
