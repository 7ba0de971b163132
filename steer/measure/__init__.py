"""Measuring settings of the knobs: many at once, on each pair, on each domain, saved as it goes."""

from steer.measure.data import Answers
from steer.measure.grid import Setting
from steer.measure.likelihood import Likelihoods, Scorer, likelihoods
from steer.measure.off_target import OffTarget, off_target
from steer.measure.result import Sweep
from steer.measure.run import sweep
from steer.measure.steerability import steerability

__all__ = [
    "Answers",
    "Likelihoods",
    "OffTarget",
    "Scorer",
    "Setting",
    "Sweep",
    "likelihoods",
    "off_target",
    "steerability",
    "sweep",
]
