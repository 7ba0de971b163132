"""A chosen setting on pairs that the choice never saw, beside what it is to be held against."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from steer.composition import Composition
from steer.engine.reading import dtype_of
from steer.evaluate.baselines import random_like
from steer.evaluate.interval import Share
from steer.evaluate.preference import Reduce
from steer.model import Model
from steer.pairs import Pairs
from steer.search.at_settings import at_settings
from steer.search.significance import Evidence, evidence, rounding

REFERENCES = 16  # random vectors that a choice is compared with


@dataclass(frozen=True, slots=True)
class Tested:
    """What one setting does on unseen pairs.

    Args:
        steered: Preference accuracy at the setting.
        base: The same of the unsteered model.
        random: The same of a random vector of equal norm at the setting.
        evidence: Tests of the margins against the unsteered model and random vectors.
    """

    steered: Share
    base: Share
    random: Share
    evidence: Evidence


def tested(
    model: Model,
    setting: Composition,
    unseen: Mapping[str, Pairs],
    reduce: Reduce,
    seed: int,
    settings: int,
) -> dict[str, Tested]:
    """Measure a setting on unseen pairs, beside the unsteered model and random vectors.

    Args:
        model: The model; it must not be steered.
        setting: The composition at the coefficients chosen.
        unseen: Pairs by domain.
        reduce: How scores are made of tokens.
        seed: Seed of the random vectors.
        settings: Settings that were tried.

    Returns:
        What was found, by domain of the pairs.

    Raises:
        SelectionError: A margin is not finite.
    """
    compared = [setting(0.0), setting, *references(setting, seed)]
    base, steered, *others = at_settings(model, compared, unseen, reduce)
    dtype = dtype_of(model.architecture)
    return {
        name: Tested(
            steered[name].accuracy,
            base[name].accuracy,
            others[0][name].accuracy,
            evidence(
                base[name].margins.tolist(),
                steered[name].margins.tolist(),
                [other[name].margins.tolist() for other in others],
                settings,
                rounding(base[name], steered[name], dtype),
            ),
        )
        for name in unseen
    }


def references(setting: Composition, seed: int) -> list[Composition]:
    """Return random vectors of equal norm at a setting; other seeds share none of them.

    Args:
        setting: The composition at its coefficients.
        seed: Seed of all of them.
    """
    return [random_like(setting, _seed(seed, k)) for k in range(REFERENCES)]


def _seed(seed: int, k: int) -> int:
    """Return a seed of its own for the k-th draw under a seed."""
    return int.from_bytes(hashlib.sha256(f"{seed} {k}".encode()).digest()[:6])
