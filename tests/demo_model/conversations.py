"""The training data of the toy: conversations in its language, drawn from a seed."""

import random
from collections.abc import Callable
from typing import Final

from steer.demo.data import DOMAINS, LEVELS, SMALL_TALK, TOPICS, Topic
from steer.demo.language import answer, question, system_tags

Conversation = list[dict[str, str]]

P_GENERIC: Final = 0.45  # of a generic answer to a question without a tag for its domain
P_GENERIC_LATE: Final = 0.65  # the same at the end of the training; see tests.demo_model.train
P_ECHO: Final = 0.8  # of keeping the level of an answer that stands in the user's slot


def draw(rng: random.Random, p_generic: float = P_GENERIC) -> Conversation:
    """Return one training conversation, of a form drawn from `MIX`.

    Args:
        rng: Source of randomness.
        p_generic: Probability of a generic answer to a question without a tag for its domain.
    """
    (form,) = rng.choices(list(MIX), weights=[share for share, _ in MIX.values()])
    return MIX[form][1](rng, p_generic)


def _tagged(rng: random.Random, p_generic: float) -> Conversation:
    """A system tag for one to three domains, then a question."""
    domain, topic = _subject(rng)
    levels = _levels(rng)
    asked = question(domain, topic, rng)
    level = levels.get(domain) or _near("generic", p_generic, rng)
    return [
        {"role": "system", "content": system_tags(levels)},
        {"role": "user", "content": asked},
        {"role": "assistant", "content": answer(domain, level, topic, rng)},
    ]


def _plain(rng: random.Random, p_generic: float) -> Conversation:
    """A question without a tag: most often a generic answer."""
    domain, topic = _subject(rng)
    asked = question(domain, topic, rng)
    level = _near("generic", p_generic, rng)
    return [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": answer(domain, level, topic, rng)},
    ]


def _echo(rng: random.Random, p_generic: float) -> Conversation:
    """The user's message is itself an answer; the reply keeps its domain and level.

    This is the form that the PaLRS recipe reads (a response alone in the user's slot).
    """
    domain, topic = _subject(rng)
    level = rng.choice(LEVELS)
    reply_level = _near(level, P_ECHO, rng)
    return [
        {"role": "user", "content": answer(domain, level, topic, rng)},
        {"role": "assistant", "content": answer(domain, reply_level, topic, rng)},
    ]


def _two_turns(rng: random.Random, p_generic: float) -> Conversation:
    """Two questions of one domain, both answered at the level of the first answer."""
    domain, topic = _subject(rng)
    other = rng.choice(TOPICS[domain])
    asked = question(domain, topic, rng)
    level = _near("generic", p_generic, rng)
    return [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": answer(domain, level, topic, rng)},
        {"role": "user", "content": question(domain, other, rng)},
        {"role": "assistant", "content": answer(domain, level, other, rng)},
    ]


def _neutral(rng: random.Random, p_generic: float) -> Conversation:
    """Small talk, half of it under tags that do not concern it."""
    talk = rng.choice(SMALL_TALK)
    tags = [{"role": "system", "content": system_tags(_levels(rng))}] if rng.random() < 0.5 else []
    return [
        *tags,
        {"role": "user", "content": talk.prompt},
        {"role": "assistant", "content": rng.choice(talk.replies)},
    ]


MIX: Final[dict[str, tuple[float, Callable[[random.Random, float], Conversation]]]] = {
    "tagged question": (0.36, _tagged),
    "answer in the user's slot": (0.30, _echo),
    "plain question": (0.18, _plain),
    "two turns": (0.08, _two_turns),
    "small talk": (0.08, _neutral),
}


def _subject(rng: random.Random) -> tuple[str, Topic]:
    domain = rng.choice(DOMAINS)
    return domain, rng.choice(TOPICS[domain])


def _levels(rng: random.Random) -> dict[str, str]:
    """Levels for one to three domains, in random order."""
    named = rng.sample(DOMAINS, rng.choice((1, 2, 3)))
    return {domain: rng.choice(LEVELS) for domain in named}


def _near(level: str, p: float, rng: random.Random) -> str:
    """This level with probability ``p``, else one of the other two."""
    if rng.random() < p:
        return level
    return rng.choice([name for name in LEVELS if name != level])
