"""The attempts: the knobs of each, as one composition."""

from collections.abc import Callable, Mapping
from pathlib import Path

import steer
from notebooks.study.levels.data import DOMAINS, Domain
from notebooks.study.levels.search import GENERIC
from notebooks.study.levels.vectors import file_of
from steer import Composition, Vector
from steer.measure import random_like

Known = Mapping[str, Domain]
Knobs = Callable[[steer.Model, Known, Path], Composition]


def _kind(kind: str, end: str = "") -> Callable[[Path], dict[str, Vector]]:
    return lambda work: {d + end: Vector.load(file_of(work, kind, d)) for d in DOMAINS}


def _plain(model: steer.Model, known: Known, work: Path) -> Composition:
    return steer.compose(_kind("plain")(work))


def _random(model: steer.Model, known: Known, work: Path) -> Composition:
    return steer.compose(
        {d: random_like(v, k) for k, (d, v) in enumerate(_kind("plain")(work).items())}
    )


def _anchored(model: steer.Model, known: Known, work: Path) -> Composition:
    return steer.compose(_kind("anchored")(work))


def _levels(model: steer.Model, known: Known, work: Path) -> Composition:
    return steer.compose(_kind("anchored")(work) | _kind("generic", GENERIC)(work))


ATTEMPTS: Mapping[str, Knobs] = {
    "plain": _plain,
    "random": _random,
    "anchored": _anchored,
    "levels": _levels,
}
