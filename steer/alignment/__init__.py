"""Alignment vectors: the difference of two models' weights, and the forms it can take."""

from steer.alignment.bidirectional import bidirectional
from steer.alignment.difference import alignment_vector, write_alignment_vector
from steer.alignment.factors import low_rank
from steer.alignment.sparse import dare, magnitude, ties
from steer.alignment.table import TensorRow, TensorTable

__all__ = [
    "TensorRow",
    "TensorTable",
    "alignment_vector",
    "bidirectional",
    "dare",
    "low_rank",
    "magnitude",
    "ties",
    "write_alignment_vector",
]
