"""Finding a setting for each combination of levels: by grid, and from coarse to fine."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from notebooks.experiments.score import Likely, least, mean
from steer.demo.data import DOMAINS, LEVELS

COMBINATIONS = tuple(itertools.product(LEVELS, repeat=len(DOMAINS)))
Settings = Float[Tensor, "setting domain"]
Evaluate = Callable[[Settings], Likely]


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
        evaluate: Returns what the likelihoods say under some settings.
        values: Coefficients of one axis.
    """
    settings = axis_grid(values)
    return _best(settings, evaluate(settings))


def coarse_to_fine(
    evaluate: Evaluate,
    values: Sequence[float],
    *,
    steps: int = 2,
) -> Found:
    """Start from a coarse grid, then halve its step around the best setting of each combination.

    Neighbours differ in one coordinate.

    Args:
        evaluate: Returns what the likelihoods say under some settings.
        values: Coefficients of one axis of the coarse grid, evenly spaced.
        steps: How often the step is halved.
    """
    settings = axis_grid(values)
    found = evaluate(settings)
    step = float(values[1] - values[0])
    for _ in range(steps):
        step /= 2
        centres = _best(settings, found).settings
        known = {tuple(row) for row in settings.tolist()}
        new = [row for row in _neighbours(centres, step, max(values)) if row not in known]
        if not new:
            break
        more = evaluate(torch.tensor(new))
        settings = torch.cat([settings, torch.tensor(new)])
        found = Likely(
            torch.cat([found.shares, more.shares]), torch.cat([found.scores, more.scores])
        )
    return _best(settings, found)


def _neighbours(centres: Settings, step: float, bound: float) -> list[tuple[float, ...]]:
    moves = [sign * step * row for row in torch.eye(len(DOMAINS)) for sign in (-1, 1)]
    rows = [(centre + move).clamp(-bound, bound) for centre in centres for move in moves]
    return list(dict.fromkeys(tuple(row.tolist()) for row in rows))


def _best(settings: Settings, found: Likely) -> Found:
    """Ties go to the setting under which the wanted answers are likeliest."""
    chosen, shares = [], []
    for wanted in COMBINATIONS:
        share, score = least(found.shares, wanted), mean(found.scores, wanted)
        at = int(torch.where(share == share.max(), score, -torch.inf).argmax())
        chosen.append(settings[at])
        shares.append(share[at])
    return Found(torch.stack(chosen), torch.stack(shares), len(settings))
