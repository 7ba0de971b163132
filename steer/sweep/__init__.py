"""Many settings of the knobs on the same data."""

from steer.sweep.grid import Setting
from steer.sweep.likelihood import Likelihoods, likelihoods
from steer.sweep.measures import Answers
from steer.sweep.result import Sweep
from steer.sweep.run import sweep

__all__ = ["Answers", "Likelihoods", "Setting", "Sweep", "likelihoods", "sweep"]
