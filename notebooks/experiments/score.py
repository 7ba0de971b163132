"""Scores of many settings of the knobs at once: settings are rows of a batch."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steer.algebra import Composition
from steer.demo.data import DOMAINS, LEVELS
from steer.demo.judge import Judgement, judge
from steer.demo.language import pairs
from steer.measure import Answers
from steer.measure._scores import DataScorer
from steer.model import Model

NEW_TOKENS = 48
ROWS = 512  # generated at once

Table = Float[Tensor, "setting domain level"]


@dataclass(frozen=True, eq=False, slots=True)
class Likely:
    """What the likelihoods of reference answers say under some settings.

    Args:
        shares: Share of questions whose likeliest reference answer has each level.
        scores: Mean over the questions of the log-probability of each level's answer, in nats.
            Shares saturate; and too strong a push makes every answer unlikely.
    """

    shares: Table
    scores: Table


@dataclass(frozen=True, slots=True)
class Asked:
    """Questions of one split with a reference answer of each level.

    Args:
        questions: For each domain, its questions.
        answers: For each domain and level, one answer per question.
    """

    questions: Mapping[str, tuple[str, ...]]
    answers: Mapping[tuple[str, str], tuple[str, ...]]


def ask(n: int, *, seed: int, split: str) -> Asked:
    """Return questions of every domain with answers of all three levels.

    Args:
        n: Questions per domain.
        seed: Seed of the draw.
        split: `train`, `validation` or `test`; their topics are disjoint.
    """
    questions, answers = {}, {}
    for domain in DOMAINS:
        low = pairs(domain, n, seed=seed, split=split, chosen_level="generic")
        high = pairs(domain, n, seed=seed, split=split)
        questions[domain] = tuple(str(pair.prompt) for pair in low)
        answers[domain, "avoidance"] = tuple(pair.rejected for pair in low)
        answers[domain, "generic"] = tuple(pair.chosen for pair in low)
        answers[domain, "expert"] = tuple(pair.chosen for pair in high)
    return Asked(questions, answers)


def likelihood(
    model: Model, knobs: Composition, settings: Float[Tensor, "setting domain"], asked: Asked
) -> Likely:
    """Return which level's reference answers are likeliest, and how likely each level's are.

    An answer's score is its log-probability, summed over its tokens: the mean per token would say
    less about what is generated, since a level is decided by the first words of an answer.

    Args:
        model: The model.
        knobs: The vectors, with or without a gate.
        settings: Coefficients of each setting, dimensionless.
        asked: Questions and reference answers.

    Returns:
        Shares and scores; the level order is that of `LEVELS`.
    """
    data = {
        d: Answers(asked.questions[d], {level: asked.answers[d, level] for level in LEVELS})
        for d in DOMAINS
    }
    scores = DataScorer(model, data, "sum", "levels")(
        [(knobs, tuple(r)) for r in settings.tolist()]
    )
    table = torch.stack(list(scores.values()), dim=1)
    best = table.argmax(dim=2, keepdim=True)
    likeliest = torch.zeros_like(table).scatter(2, best, 1.0)
    return Likely(likeliest.mean(dim=-1), table.mean(dim=-1))


def judged(
    model: Model, knobs: Composition, settings: Float[Tensor, "setting domain"], asked: Asked
) -> Table:
    """Return the share of generated answers that the rule judge finds at each level.

    Args:
        model: The model.
        knobs: The vectors, with or without a gate.
        settings: Coefficients of each setting, dimensionless.
        asked: The questions.

    Returns:
        Shares in [0, 1]; what is missing to 1 is unclear, or of another domain.
    """
    columns = []
    for domain in DOMAINS:
        questions = list(asked.questions[domain])
        each = len(questions)
        step = max(1, ROWS // each)
        found: list[str] = []
        for part in settings.split(step):
            with model.steered(knobs, part.repeat_interleave(each, dim=0)):
                found += model.generate(questions * len(part), max_new_tokens=NEW_TOKENS)
        hits = torch.tensor(
            [[judge(text) == Judgement(domain, level) for level in LEVELS] for text in found]
        )
        columns.append(_mean(hits.reshape(len(settings), each, len(LEVELS))))
    return torch.stack(columns, dim=1)


def two_domains(
    model: Model,
    knobs: Composition,
    settings: Float[Tensor, "setting domain"],
    wanted: Sequence[Sequence[str]],
    asked: Asked,
) -> Float[Tensor, " setting"]:
    """Return how often prompts that ask about two domains get an answer at a wanted level.

    An answer is about one domain; right is the level wanted in that one, if it was asked about.

    Args:
        model: The model.
        knobs: The vectors, with or without a gate.
        settings: Coefficients of each setting, dimensionless.
        wanted: For each setting, the level wanted in each domain.
        asked: The questions; the same number of each domain.

    Returns:
        Shares in [0, 1].
    """
    two = list(itertools.combinations(DOMAINS, 2))
    prompts = [
        f"{first} {second}"
        for a, b in two
        for first, second in zip(asked.questions[a], asked.questions[b], strict=True)
    ]
    about = [pair for pair in two for _ in asked.questions[pair[0]]]
    found: list[str] = []
    for part in settings.split(max(1, ROWS // len(prompts))):
        with model.steered(knobs, part.repeat_interleave(len(prompts), dim=0)):
            found += model.generate(prompts * len(part), max_new_tokens=NEW_TOKENS)
    right = []
    for k, text in enumerate(found):
        said, levels = judge(text), wanted[k // len(prompts)]
        named = about[k % len(prompts)]
        right.append(said.domain in named and said.level == levels[DOMAINS.index(said.domain)])
    return torch.tensor(right).reshape(len(settings), -1).double().mean(dim=1)


def least(table: Table, wanted: Sequence[str]) -> Float[Tensor, " setting"]:
    """Return the share at the wanted level in the domain where it is least.

    Args:
        table: Shares.
        wanted: The level wanted in each domain.
    """
    return _picked(table, wanted).min(dim=0).values


def mean(table: Table, wanted: Sequence[str]) -> Float[Tensor, " setting"]:
    """Return the mean over the domains of what the wanted levels score.

    Args:
        table: Scores.
        wanted: The level wanted in each domain.
    """
    return _picked(table, wanted).mean(dim=0)


def _picked(table: Table, wanted: Sequence[str]) -> Float[Tensor, "domain setting"]:
    return torch.stack([table[:, k, LEVELS.index(level)] for k, level in enumerate(wanted)])


def _mean(hits: Bool[Tensor, "setting question level"]) -> Float[Tensor, "setting level"]:
    return hits.double().mean(dim=1)
