"""Preference pairs: a prompt, a chosen and a rejected answer.

``Pairs.load`` reads them from files, data sets and plain Python rows; see
:meth:`steer.pairs.Pairs.load` for the supported shapes.
"""

from steer.pairs._load import RejectedRow
from steer.pairs._pair import Message, Pair, Prompt
from steer.pairs._pairs import Pairs, as_pairs

__all__ = [
    "Message",
    "Pair",
    "Pairs",
    "Prompt",
    "RejectedRow",
    "as_pairs",
]
