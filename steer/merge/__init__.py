"""Merging: weight vectors written into the weights, in memory or from disk to disk.

Every merged weight is the nearest-even rounding of the exact sum, always from the pristine base.
"""

from steer.merge._delta import Delta, Difference
from steer.merge._disk import merge_checkpoint
from steer.merge._merger import Merger, merger_of

__all__ = [
    "Delta",
    "Difference",
    "Merger",
    "merge_checkpoint",
    "merger_of",
]
