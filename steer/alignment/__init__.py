"""Alignment vectors: the difference of two models' weights, and the forms it can take."""

from steer.alignment._difference import alignment_vector, write_alignment_vector
from steer.alignment._factors import low_rank
from steer.alignment._forms import bidirectional, dare, magnitude, ties
from steer.alignment._in_domain import in_domain
from steer.alignment._table import TensorRow, TensorTable
from steer.alignment._tune import preference_tune

__all__ = [
    "TensorRow",
    "TensorTable",
    "alignment_vector",
    "bidirectional",
    "dare",
    "in_domain",
    "low_rank",
    "magnitude",
    "preference_tune",
    "ties",
    "write_alignment_vector",
]
