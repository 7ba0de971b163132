"""Many settings of the knobs on the same data."""

from steer.sweep.grid import Setting
from steer.sweep.likelihood import Likelihoods, Scorer, likelihoods
from steer.sweep.measures import Answers
from steer.sweep.result import Sweep
from steer.sweep.run import sweep

__all__ = ["Answers", "Likelihoods", "Scorer", "Setting", "Sweep", "likelihoods", "sweep"]
