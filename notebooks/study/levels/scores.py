"""How likely the answers of each level are under a setting, and what counts as reached."""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

import steer
from notebooks.study.levels.data import DOMAINS, LEVELS
from notebooks.study.levels.likelihood import Table as Table
from notebooks.study.levels.likelihood import level_scores
from steer import Answers, Composition, Weight
from steer.measure import Share, likelihoods
from steer.pairs import Message

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
        return level_scores(model, part, prefix)


def scored(
    model: steer.Model,
    parts: Mapping[str, Answers],
    knobs: Composition,
    settings: Sequence[Setting],
) -> Iterator[tuple[Setting, Tables, float]]:
    """Yield the tables of each setting, and its CPU seconds; residual knobs go together."""
    if any(isinstance(site, Weight) for site in knobs.sites):
        for setting in settings:
            start = time.process_time()
            tables = {name: scores(model, part, knobs, setting) for name, part in parts.items()}
            yield setting, tables, round(time.process_time() - start, 1)
        return
    start = time.process_time()
    together = {name: _together(model, part, knobs, settings) for name, part in parts.items()}
    seconds = round((time.process_time() - start) / max(1, len(settings)), 1)
    for k, setting in enumerate(settings):
        yield setting, {name: tables[k] for name, tables in together.items()}, seconds


def _together(
    model: steer.Model, part: Answers, knobs: Composition, settings: Sequence[Setting]
) -> Float[Tensor, "setting question level"]:
    """Return the scores under many settings of residual knobs, which share what lies below."""
    texts = [text for level in LEVELS for text in part.answers[level]]
    found = likelihoods(model, knobs, list(settings), [*part.prompts] * len(LEVELS), texts)
    table = torch.stack([text.double().mean(dim=1) for text in found.logprobs])
    levels: Tensor = table.unflatten(0, (len(LEVELS), -1))
    return levels.permute(2, 1, 0)


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
