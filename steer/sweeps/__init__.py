"""Many settings of the knobs on the same data."""

from steer.sweeps.grid import Setting
from steer.sweeps.likelihood import Likelihoods, Scorer, likelihoods
from steer.sweeps.measures import Answers
from steer.sweeps.result import Sweep
from steer.sweeps.run import sweep

__all__ = ["Answers", "Likelihoods", "Scorer", "Setting", "Sweep", "likelihoods", "sweep"]
