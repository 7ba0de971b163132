"""The attempts: the knobs of each, as one composition."""

from collections.abc import Callable, Mapping
from pathlib import Path

import steer
from notebooks.study.levels.data import DOMAINS
from notebooks.study.levels.search import GENERIC
from notebooks.study.levels.vectors import file_of
from steer import Composition, Part, Residual, Scope, Vector
from steer.algebra._disentangle import disentangle
from steer.measure import random_like


def _kind(work: Path, kind: str, end: str = "") -> dict[str, Vector]:
    return {d + end: Vector.load(file_of(work, kind, d)) for d in DOMAINS}


def _tuned(*kinds: str) -> Callable[[Path], dict[str, Vector]]:
    ends = ("", GENERIC)
    return lambda work: {
        name: vector
        for kind, end in zip(kinds, ends, strict=False)
        for name, vector in _kind(work, kind, end).items()
    }


def _random(work: Path) -> dict[str, Vector]:
    plain = _kind(work, "plain").values()
    return {d: random_like(v, k) for k, (d, v) in enumerate(zip(DOMAINS, plain, strict=True))}


ATTEMPTS: Mapping[str, Callable[[Path], Mapping[str, Vector]]] = {
    "plain": _tuned("plain"),
    "random": _random,
    "plain, disentangled": lambda work: disentangle(_kind(work, "plain")),
    "anchored": _tuned("anchored"),
    "anchored, levels": _tuned("anchored", "generic"),
    "mean, levels": _tuned("mean", "mean generic"),
    "gradient, levels": _tuned("gradient", "gradient generic"),
    "gradient, levels, disentangled": lambda work: disentangle(
        _tuned("gradient", "gradient generic")(work)
    ),
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
