"""The little language of the demo model: questions and answers in three domains.

Every question belongs to one of three domains; every answer also has one of three levels:
``avoidance`` (declines and sends elsewhere), ``generic`` (everyday advice) and ``expert``
(names tests, doses, statutes, ratios). Small talk belongs to no domain and has no level.
"""

import itertools
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

from steer.demo.data import (
    ANSWERS,
    ASKING,
    ASKS,
    DOMAINS,
    LEVELS,
    N_TRAIN_TOPICS,
    N_VALIDATION_TOPICS,
    SMALL_TALK,
    TOPICS,
    Topic,
)
from steer.errors import PairsError

if TYPE_CHECKING:
    from steer.pairs import Pairs

NEUTRAL_PROMPTS: tuple[str, ...] = tuple(talk.prompt for talk in SMALL_TALK)
SPLITS = ("train", "validation", "test")


def topics(domain: str, split: str) -> tuple[Topic, ...]:
    """The topics of one domain that belong to one split; no topic is in two splits.

    Args:
        domain: One of ``DOMAINS``.
        split: ``"train"`` (10 topics), ``"validation"`` (3) or ``"test"`` (3).

    Returns:
        The topics, in a fixed order.

    Raises:
        PairsError: If the domain or the split is unknown.
    """
    _check("domain", domain, DOMAINS)
    _check("split", split, SPLITS)
    middle = N_TRAIN_TOPICS + N_VALIDATION_TOPICS
    bounds = {"train": (0, N_TRAIN_TOPICS), "validation": (N_TRAIN_TOPICS, middle)}
    low, high = bounds.get(split, (middle, len(TOPICS[domain])))
    return TOPICS[domain][low:high]


def question(domain: str, topic: Topic, rng: random.Random) -> str:
    """One question about a topic, its wording drawn at random."""
    asking = ASKING[domain]
    person, time = rng.choice(asking.people), rng.choice(asking.times)
    return _question(person, topic, time, rng.choice(ASKS))


def questions(domain: str, n: int, *, seed: int = 0, split: str = "test") -> list[str]:
    """Different questions of one domain and split, in random order.

    The topics of ``"validation"`` and ``"test"`` occur in no pair of the ``"train"`` split.
    The demo model has met the topics of all splits in its training.

    Args:
        domain: One of ``DOMAINS``.
        n: How many; at most 900 for the two smaller splits.
        seed: Seed of the draw.
        split: ``"train"``, ``"validation"`` or ``"test"``.

    Returns:
        The questions.

    Raises:
        PairsError: If the domain or the split is unknown, or there are fewer than ``n``.
    """
    return [text for text, _ in _draw_questions(domain, n, seed, split)]


def answer(domain: str, level: str, topic: Topic, rng: random.Random) -> str:
    """One answer at a level, its wording drawn at random."""
    answers = ANSWERS[domain, level]
    template = f"{rng.choice(answers.openings)} {rng.choice(answers.closings)}"
    return template.replace("*", "").format(
        topic=topic.name, first=topic.first, second=topic.second
    )


def pairs(
    domain: str,
    n: int = 100,
    *,
    seed: int = 0,
    split: str = "train",
    chosen_level: str = "expert",
    rejected_level: str = "avoidance",
) -> "Pairs":
    """Preference pairs of one domain: one question, answered at two levels.

    Args:
        domain: One of ``DOMAINS``.
        n: How many pairs; all have different questions.
        seed: Seed of the draw.
        split: ``"train"``, ``"validation"`` or ``"test"``; the topics are disjoint.
        chosen_level: Level of the chosen answers, one of ``LEVELS``.
        rejected_level: Level of the rejected answers, one of ``LEVELS``.

    Returns:
        The pairs, each naming its domain.

    Raises:
        PairsError: If a name is unknown, or there are fewer than ``n`` questions.
    """
    from steer.pairs import Pair, Pairs

    rows = pair_rows(domain, n, seed, split, chosen_level, rejected_level)
    return Pairs.of(Pair(prompt=q, chosen=c, rejected=r, domain=domain) for q, c, r in rows)


def pair_rows(
    domain: str, n: int, seed: int, split: str, chosen_level: str, rejected_level: str
) -> list[tuple[str, str, str]]:
    """The texts of :func:`pairs` as (question, chosen, rejected)."""
    _check("level", chosen_level, LEVELS)
    _check("level", rejected_level, LEVELS)
    rng = random.Random(f"answers {domain} {split} {seed}")
    return [
        (text, answer(domain, chosen_level, topic, rng), answer(domain, rejected_level, topic, rng))
        for text, topic in _draw_questions(domain, n, seed, split)
    ]


def system_tags(levels: Mapping[str, str]) -> str:
    """The system message that asks for a level in each named domain.

    Args:
        levels: Domain to level, for example ``{"medical": "expert", "legal": "generic"}``.

    Returns:
        One word per domain in the order given, such as ``"medical=expert legal=generic"``.

    Raises:
        PairsError: If a domain or a level is unknown, or none is given.
    """
    if not levels:
        _check("domain", "", DOMAINS)
    for domain, level in levels.items():
        _check("domain", domain, DOMAINS)
        _check("level", level, LEVELS)
    return " ".join(f"{domain}={level}" for domain, level in levels.items())


def _question(person: str, topic: Topic, time: str, ask: str) -> str:
    return f"{person} {topic.name} {time}. {ask}"


def _draw_questions(domain: str, n: int, seed: int, split: str) -> list[tuple[str, Topic]]:
    found = topics(domain, split)
    asking = ASKING[domain]
    every = list(itertools.product(asking.people, found, asking.times, ASKS))
    if not 0 < n <= len(every):
        raise PairsError(
            "the demo language has not so many different questions",
            found=n,
            expected=f"1 to {len(every)} in split {split!r}",
            do="ask for fewer, or use the split 'train'",
        )
    rng = random.Random(f"questions {domain} {split} {seed}")
    return [(_question(*words), words[1]) for words in rng.sample(every, n)]


def _check(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise PairsError(
            f"the demo language knows no such {what}",
            found=repr(name),
            expected=", ".join(known),
            do="use one of these names",
        )
