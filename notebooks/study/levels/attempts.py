"""The attempts: the knobs of each, as one composition."""

from collections.abc import Callable, Mapping
from pathlib import Path

import steer
from notebooks.study.levels.data import DOMAINS
from notebooks.study.levels.disentangle import disentangle
from notebooks.study.levels.search import LEVEL
from notebooks.study.levels.vectors import file_of
from steer import Composition, Part, Residual, Scope, Vector
from steer.measure import random_like


def _kind(work: Path, *kinds: str) -> dict[str, Vector]:
    """Return the vectors of some kinds; those that prefer a level have it in their name."""
    return {
        f"{d} {kind.split()[-1]}" if kind.endswith(LEVEL) else d: Vector.load(
            file_of(work, kind, d)
        )
        for kind in kinds
        for d in DOMAINS
    }


def _random(work: Path) -> dict[str, Vector]:
    plain = _kind(work, "plain").values()
    return {d: random_like(v, k) for k, (d, v) in enumerate(zip(DOMAINS, plain, strict=True))}


ATTEMPTS: Mapping[str, Callable[[Path], Mapping[str, Vector]]] = {
    "plain": lambda work: _kind(work, "plain"),
    "random": _random,
    "plain, disentangled": lambda work: disentangle(_kind(work, "plain")),
    "levels, contrasted": lambda work: _kind(work, "contrasted avoidance", "contrasted generic"),
    "levels, gradient, disentangled": lambda work: disentangle(
        _kind(work, "gradient", "gradient generic")
    ),
    "levels, sites": lambda work: _kind(work, "sites", "sites generic"),
    "levels, sites, reading": lambda work: _kind(work, "reading", "reading generic"),
    "levels, sites, disentangled": lambda work: disentangle(_kind(work, "sites", "sites generic")),
}


def knobs_of(attempt: str, work: Path) -> Composition:
    """Return the knobs of an attempt; residual ones act on the tokens of the answer."""
    return steer.compose(
        {
            name: Part(vector, scope=_scope(vector))
            for name, vector in ATTEMPTS[attempt](work).items()
        }
    )


def _scope(vector: Vector) -> Scope:
    residual = any(isinstance(site, Residual) for site in vector.sites)
    return Scope("response" if residual else "all")
