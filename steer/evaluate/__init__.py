"""Measures: small functions that return a value and how sure it is."""

from steer.evaluate.interval import Share, wilson
from steer.evaluate.kl import NeutralText, kl_per_token, neutral_text
from steer.evaluate.levels import LevelPreference, level_preference
from steer.evaluate.preference import Preference, preference

__all__ = [
    "LevelPreference",
    "NeutralText",
    "Preference",
    "Share",
    "kl_per_token",
    "level_preference",
    "neutral_text",
    "preference",
    "wilson",
]
