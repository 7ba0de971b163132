"""Running a model through nnsight: on this machine, or on one that has room for it.

Importing nnsight changes built-in objects and torch, so only functions of this package import it.
"""

from steer.engine._nnsight.engine import NNsightEngine

__all__ = [
    "NNsightEngine",
]
