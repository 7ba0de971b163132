"""Merging: weight vectors written into the weights, in memory or from disk to disk.

Every merged weight is computed in float64 from the pristine base and cast once.
"""

from steer.merge._disk import merge_checkpoint
from steer.merge._merger import Merger, merger_of

__all__ = [
    "Merger",
    "merge_checkpoint",
    "merger_of",
]
