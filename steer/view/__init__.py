"""Views: results with charts, for looking inside.

Every view is a function that returns a frozen result. `print` shows its table, a notebook charts
and table; `.rows` is a list of dictionaries, `.to_pandas()` the same for pandas, and `.plot()`
draws with matplotlib (the extra `plot`), without any global state.
"""

from steer.view._base import View
from steer.view._cosines import Cosines, cosines
from steer.view._displacement import Displacement, displacement
from steer.view._dose_response import DoseResponse, dose_response
from steer.view._interference import Interference, interference
from steer.view._layer_cosines import LayerCosines, layer_cosines
from steer.view._lens import Lens, lens
from steer.view._next_token import NextToken, next_token
from steer.view._principal_components import PrincipalComponents, principal_components
from steer.view._separation import Separation, separation
from steer.view._spectrum import Module, Spectrum, spectrum
from steer.view._trajectory import Trajectory, trajectory

__all__ = [
    "Cosines",
    "Displacement",
    "DoseResponse",
    "Interference",
    "LayerCosines",
    "Lens",
    "Module",
    "NextToken",
    "PrincipalComponents",
    "Separation",
    "Spectrum",
    "Trajectory",
    "View",
    "cosines",
    "displacement",
    "dose_response",
    "interference",
    "layer_cosines",
    "lens",
    "next_token",
    "principal_components",
    "separation",
    "spectrum",
    "trajectory",
]
