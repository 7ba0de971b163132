"""Finding a setting for each combination of levels: by grid, and from coarse to fine."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer.demo.data import DOMAINS, LEVELS
from steer.demo.domains.score import Table, least

COMBINATIONS = tuple(itertools.product(LEVELS, repeat=len(DOMAINS)))
Settings = Float[Tensor, "setting domain"]
Evaluate = Callable[[Settings], Table]


@dataclass(frozen=True, eq=False, slots=True)
class Found:
    """The best setting found for each combination.

    Args:
        settings: `[combination domain]`, coefficients, in the order of `COMBINATIONS`.
        shares: `[combination]`, share at the wanted level in the domain where it is least, on
            what was searched with.
        evaluated: Settings that were evaluated in all.
    """

    settings: Float[Tensor, "combination domain"]
    shares: Float[Tensor, " combination"]
    evaluated: int


def axis_grid(values: Sequence[float]) -> Settings:
    """Return every triple of values.

    Args:
        values: Coefficients of one axis.
    """
    return torch.tensor(list(itertools.product(values, repeat=len(DOMAINS))))


def by_grid(evaluate: Evaluate, values: Sequence[float]) -> Found:
    """Evaluate every triple of values and return the best for each combination.

    Args:
        evaluate: Returns the table of shares of some settings.
        values: Coefficients of one axis.
    """
    settings = axis_grid(values)
    return _best(settings, evaluate(settings))


def coarse_to_fine(
    evaluate: Evaluate,
    values: Sequence[float],
    *,
    steps: int = 2,
    enough: float = 1.0,
) -> Found:
    """Start from a coarse grid, then halve its step around the best setting of each combination.

    Combinations that have reached `enough` are not refined. Neighbours differ in one coordinate.

    Args:
        evaluate: Returns the table of shares of some settings.
        values: Coefficients of one axis of the coarse grid, evenly spaced.
        steps: How often the step is halved.
        enough: Share with which a combination is content.
    """
    settings = axis_grid(values)
    table = evaluate(settings)
    step = float(values[1] - values[0])
    for _ in range(steps):
        step /= 2
        best = _best(settings, table)
        open_ = best.settings[best.shares < enough]
        known = {tuple(row) for row in settings.tolist()}
        new = [row for row in _neighbours(open_, step, max(values)) if row not in known]
        if not new:
            break
        added = torch.tensor(new)
        settings = torch.cat([settings, added])
        table = torch.cat([table, evaluate(added)])
    return _best(settings, table)


def _neighbours(centres: Settings, step: float, bound: float) -> list[tuple[float, ...]]:
    moves = [sign * step * row for row in torch.eye(len(DOMAINS)) for sign in (-1, 1)]
    rows = [(centre + move).clamp(-bound, bound) for centre in centres for move in moves]
    return list(dict.fromkeys(tuple(row.tolist()) for row in rows))


def _best(settings: Settings, table: Table) -> Found:
    """Ties go to the weakest setting: the least sum of squares."""
    weakness = -(settings.double() ** 2).sum(dim=1) * 1e-6
    chosen, shares = [], []
    for wanted in COMBINATIONS:
        share = least(table, wanted)
        at = int((share + weakness).argmax())
        chosen.append(settings[at])
        shares.append(share[at])
    return Found(torch.stack(chosen), torch.stack(shares), len(settings))
