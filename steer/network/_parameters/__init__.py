"""The parameters of a model by their own names, one at a time, from memory or from disk."""

from steer.network._parameters.layout import Layout, layout_of
from steer.network._parameters.parameters import Parameters, parameters_in, parameters_of

__all__ = [
    "Layout",
    "Parameters",
    "layout_of",
    "parameters_in",
    "parameters_of",
]
