"""How likely the answers of each level are under a setting, and what counts as reached."""

import itertools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

import steer
from notebooks.study.levels.data import DOMAINS, LEVELS
from steer import Answers, Composition
from steer.measure import Share, likelihoods
from steer.pairs import Message

Table = Float[Tensor, "question level"]
Tables = Mapping[str, Table]  # by domain, mean log-probability per token in nats
Setting = Mapping[str, float]  # by knob
Wanted = tuple[str, ...]  # a level for each domain
COMBINATIONS: tuple[Wanted, ...] = tuple(itertools.product(LEVELS, repeat=len(DOMAINS)))


def scores(
    model: steer.Model,
    part: Answers,
    knobs: Composition | None = None,
    setting: Setting | None = None,
    prefix: Sequence[Message] = (),
) -> Table:
    """Return the score of each answer of one domain, steered or prompted."""
    steered: AbstractContextManager[object] = nullcontext()
    if knobs is not None and setting:
        steered = model.steered(knobs, {name: c for name, c in setting.items() if c})
    with steered:
        return steer.level_preference(model, part.prompts, part.answers, prefix=prefix).scores


def scores_of_many(
    model: steer.Model, part: Answers, knobs: Composition, settings: Sequence[Setting]
) -> list[Table]:
    """Return the scores under many settings of residual knobs, which share what lies below."""
    texts = [text for level in LEVELS for text in part.answers[level]]
    found = likelihoods(model, knobs, list(settings), [*part.prompts] * len(LEVELS), texts)
    table = torch.stack([text.double().mean(dim=1) for text in found.logprobs])
    return list(table.unflatten(0, (len(LEVELS), -1)).permute(2, 1, 0))


def share(table: Table, level: str) -> Share:
    """Return the share of questions whose likeliest answer is that of a level."""
    return Share(int((lead(table, level) > 0).sum()), len(table))


def lead(table: Table, level: str) -> Float[Tensor, "*setting question"]:
    """Return by how much the answer of a level is likelier than the best other, in nats."""
    column = LEVELS.index(level)
    others = [k for k in range(len(LEVELS)) if k != column]
    return table[..., column] - table[..., others].amax(dim=-1)


def reached(found: Share, base: Share) -> bool:
    """Return whether a level is reached, given its share at λ = 0 on the same questions."""
    if base.value > 0.5:
        return found.hits >= base.hits
    return found.value > 0.5 and found.interval[0] > base.value
