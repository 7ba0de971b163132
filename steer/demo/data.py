"""The tables of the toy's language: topics, facts, sentence templates, small talk.

`language.json` holds them. In a template `{topic}` and the other braces are slots; the words
between asterisks are the marker by which the judge recognises the template. A marker occurs in one
domain and level only.
"""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

N_TRAIN_TOPICS: Final = 10
N_VALIDATION_TOPICS: Final = 3


class Topic(NamedTuple):
    """A topic of questions, and the two facts that an expert names."""

    name: str
    first: str
    second: str


class DomainAnswers(NamedTuple):
    """The two sentences of an answer at one level: an opening, then a closing."""

    openings: tuple[str, ...]
    closings: tuple[str, ...]


class Asking(NamedTuple):
    """Who has a question in a domain, and since when."""

    people: tuple[str, ...]
    times: tuple[str, ...]


class SmallTalk(NamedTuple):
    """A message outside the three domains, and replies of equal quality."""

    prompt: str
    replies: tuple[str, ...]


_DATA: Final[dict[str, Any]] = json.loads(
    Path(__file__).with_name("language.json").read_text(encoding="utf-8")
)
DOMAINS: Final[tuple[str, ...]] = tuple(_DATA["topics"])
LEVELS: Final = ("avoidance", "generic", "expert")
TOPICS: Final = {
    domain: tuple(Topic(*row) for row in rows) for domain, rows in _DATA["topics"].items()
}
ASKING: Final = {domain: Asking(*map(tuple, of.values())) for domain, of in _DATA["asking"].items()}
ASKS: Final[tuple[str, ...]] = tuple(_DATA["asks"])
ANSWERS: Final = {
    (domain, level): DomainAnswers(*map(tuple, levels[level].values()))
    for domain, levels in _DATA["answers"].items()
    for level in LEVELS
}
SMALL_TALK: Final = tuple(SmallTalk(prompt, tuple(said)) for prompt, said in _DATA["small_talk"])
