"""Measuring settings of the knobs: many at once, on each pair, on each domain, saved as it goes."""

from steer.measure.grid import Setting
from steer.measure.likelihood import Likelihoods, Scorer, likelihoods
from steer.measure.matrix import OffTarget
from steer.measure.measures import Answers
from steer.measure.off_target import off_target
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
