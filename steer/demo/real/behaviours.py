"""Behaviours that show in the text, as short preference pairs written for this project.

Each pair answers an everyday question with one tip, in the style wanted and in the opposite one:
`behaviours.json` holds tips and templates, in which `{}` stands for the tip and `{question}` for
the question. Training and held-out pairs share no question and no template, and `ASKED` is in
neither. Two of the behaviours have a kind of questions of their own, for a gate to tell apart.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from steer.demo.real.rules import judge
from steer.pairs import Pair, Pairs

__all__ = ["ASKED", "BEHAVIOURS", "KINDS", "TIPS", "TRAINING", "held_out", "judge", "pairs"]

_FILE = Path(__file__).with_name("behaviours.json")
_DATA: Final[dict[str, Any]] = json.loads(_FILE.read_text(encoding="utf-8"))
_TRAIN = 18  # questions that vectors are made from; the others are held out

TIPS: Final[list[tuple[str, str]]] = [(question, tip) for question, tip in _DATA["tips"]]
ASKED: Final[tuple[str, ...]] = tuple(_DATA["asked"])
BEHAVIOURS: Final = tuple(_DATA["behaviours"])
KINDS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(_DATA["kinds"])
TRAINING: Final = 2 * _TRAIN  # pairs of each behaviour


def pairs(behaviour: str) -> Pairs:
    """Return the 36 pairs that a vector is made from.

    Args:
        behaviour: One of `BEHAVIOURS`.
    """
    return _pairs(TIPS[:_TRAIN], behaviour, "made_from")


def held_out(behaviour: str) -> Pairs:
    """Return the 24 pairs that a vector is chosen and tested with.

    Args:
        behaviour: One of `BEHAVIOURS`.
    """
    return _pairs(TIPS[_TRAIN:], behaviour, "held_out")


def _pairs(tips: list[tuple[str, str]], behaviour: str, part: str) -> Pairs:
    """Return two pairs of each question, with templates in turn."""
    templates = _DATA["behaviours"][behaviour][part]
    n = len(templates)
    return Pairs.of(
        Pair(question, chosen.format(tip, question=question), rejected.format(tip), behaviour)
        for k, (question, tip) in enumerate(tips)
        for chosen, rejected in (templates[k % n], templates[(k + 1) % n])
    )
