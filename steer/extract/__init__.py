"""From preference pairs to residual vectors: recording, positions, methods, gates."""

from steer.extract._activations import Activations
from steer.extract._gating import domain_gate, routing_accuracy
from steer.extract._mean_difference import mean_difference
from steer.extract._palrs import palrs
from steer.extract._positions import POSITIONS
from steer.extract._preference_gradient import preference_gradient
from steer.extract._principal_difference import principal_difference
from steer.extract._record import packing_report, record
from steer.extract._registry import Method, get_method, method, methods

__all__ = [
    "POSITIONS",
    "Activations",
    "Method",
    "domain_gate",
    "get_method",
    "mean_difference",
    "method",
    "methods",
    "packing_report",
    "palrs",
    "preference_gradient",
    "principal_difference",
    "record",
    "routing_accuracy",
]
