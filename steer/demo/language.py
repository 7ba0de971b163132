"""The language of the toy: questions and answers in three domains.

An answer also has one of three levels: `avoidance` declines and refers to somebody else, `generic`
gives everyday advice, `expert` names tests, doses, statutes or ratios. Small talk has neither.
"""

import itertools
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

from steer._check import as_list, integer, one_of
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

if TYPE_CHECKING:
    from steer.pairs import Pairs

NEUTRAL_PROMPTS: tuple[str, ...] = tuple(talk.prompt for talk in SMALL_TALK)
SPLITS = ("train", "validation", "test")


def topics(domain: str, split: str) -> tuple[Topic, ...]:
    """Return the topics of a domain that belong to a split; no topic is in two splits.

    Args:
        domain: `medical`, `legal` or `financial`.
        split: `train` (10 topics), `validation` (3) or `test` (3).

    Raises:
        ArgumentError: There is no such domain or split.
    """
    one_of("domain", domain, DOMAINS)
    one_of("split", split, SPLITS)
    middle = N_TRAIN_TOPICS + N_VALIDATION_TOPICS
    bounds = {"train": (0, N_TRAIN_TOPICS), "validation": (N_TRAIN_TOPICS, middle)}
    low, high = bounds.get(split, (middle, len(TOPICS[domain])))
    return TOPICS[domain][low:high]


def question(domain: str, topic: Topic, rng: random.Random) -> str:
    """Return a question about a topic, its wording drawn at random."""
    asking = ASKING[domain]
    person, time = rng.choice(asking.people), rng.choice(asking.times)
    return _question(person, topic, time, rng.choice(ASKS))


def questions(domain: str, n: int, *, seed: int = 0, split: str = "test") -> list[str]:
    """Return different questions of one domain and split, in random order.

    The topics of `validation` and `test` occur in no pair of the `train` split; the toy itself was
    trained on the topics of all splits.

    Args:
        domain: `medical`, `legal` or `financial`.
        n: Number of questions; at most 900 for the two smaller splits.
        seed: Seed of the draw.
        split: `train`, `validation` or `test`.

    Raises:
        ArgumentError: There is no such domain or split, or there are fewer questions.
    """
    return [text for text, _ in _draw_questions(domain, n, seed, split)]


def answer(domain: str, level: str, topic: Topic, rng: random.Random) -> str:
    """Return an answer at a level, its wording drawn at random."""
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
    """Return preference pairs of one domain: a question, answered at two levels.

    Args:
        domain: `medical`, `legal` or `financial`.
        n: Number of pairs; all have different questions.
        seed: Seed of the draw.
        split: `train`, `validation` or `test`; the topics are disjoint.
        chosen_level: Level of the chosen answers: `avoidance`, `generic` or `expert`.
        rejected_level: Level of the rejected answers.

    Returns:
        The pairs, each with its domain.

    Raises:
        ArgumentError: There is no such domain, split or level, or there are fewer questions.
    """
    from steer.pairs import Pair, Pairs

    chosen = one_of("chosen_level", chosen_level, LEVELS)
    rejected = one_of("rejected_level", rejected_level, LEVELS)
    rng = random.Random(f"answers {domain} {split} {seed}")
    return Pairs.of(
        Pair(text, answer(domain, chosen, topic, rng), answer(domain, rejected, topic, rng), domain)
        for text, topic in _draw_questions(domain, n, seed, split)
    )


def system_tags(levels: Mapping[str, str]) -> str:
    """Return the system message that asks for a level in each domain named.

    Args:
        levels: Levels by domain, for example `{"medical": "expert", "legal": "generic"}`.

    Returns:
        A word for each domain, such as `medical=expert legal=generic`.

    Raises:
        ArgumentError: There is no such domain or level, or none is given.
    """
    for domain, level in as_list("levels", levels.items(), least=1):
        one_of("domain", domain, DOMAINS)
        one_of("level", level, LEVELS)
    return " ".join(f"{domain}={level}" for domain, level in levels.items())


def _question(person: str, topic: Topic, time: str, ask: str) -> str:
    return f"{person} {topic.name} {time}. {ask}"


def _draw_questions(domain: str, n: int, seed: int, split: str) -> list[tuple[str, Topic]]:
    found = topics(domain, split)
    asking = ASKING[domain]
    every = list(itertools.product(asking.people, found, asking.times, ASKS))
    n = integer("n", n, least=1, most=len(every), do="ask for fewer, or use the split 'train'")
    rng = random.Random(f"questions {domain} {split} {seed}")
    return [(_question(*words), words[1]) for words in rng.sample(every, n)]
