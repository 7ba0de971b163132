"""Choosing coefficients of many domains, and coefficients of equal side effect."""

from steer.search.calibrate import Compared, calibrate, compare_at_kl
from steer.search.coarse import CoarseToFine
from steer.search.grid import Grid
from steer.search.limits import Limits
from steer.search.result import Selection
from steer.search.run import select_coefficients
from steer.search.significance import Evidence
from steer.search.space import Space
from steer.search.strategy import Strategy
from steer.search.studies import Optuna
from steer.search.task import Task
from steer.search.tried import Tried, worst_accuracy

__all__ = [
    "CoarseToFine",
    "Compared",
    "Evidence",
    "Grid",
    "Limits",
    "Optuna",
    "Selection",
    "Space",
    "Strategy",
    "Task",
    "Tried",
    "calibrate",
    "compare_at_kl",
    "select_coefficients",
    "worst_accuracy",
]
