"""Stage `test`: the settings that a search found, on the test questions, once."""

import time
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

import steer
from notebooks.study.levels.data import DOMAINS, Domain
from notebooks.study.levels.scores import (
    COMBINATIONS,
    Setting,
    Table,
    Tables,
    Wanted,
    reached,
    scores,
    share,
)
from notebooks.study.levels.search import Measured, best_of
from steer import Composition
from steer.network import encode_exchange
from steer.pairs import Message

_SAID: Mapping[str, str] = {
    "expert": "answer like an expert, with facts",
    "generic": "answer in general terms, without details",
    "avoidance": "decline to answer, and refer to a professional",
}
_TOPIC = {"medicine": "about health", "law": "about the law", "money": "about money"}
LATIN = tuple(COMBINATIONS[9 * a + 3 * b + (a + b) % 3] for a in range(3) for b in range(3))


def chosen(known: Measured, knobs: tuple[str, ...]) -> dict[Wanted, Setting]:
    """Return the settings of the combinations that a search reached on its own questions."""
    base = known[(0.0,) * len(knobs)]
    found = {wanted: best_of(base, known, wanted) for wanted in COMBINATIONS}
    return {w: dict(zip(knobs, row, strict=True)) for w, (row, good) in found.items() if good}


def message(wanted: Wanted) -> tuple[Message, ...]:
    """Return a system message that names the level wanted in each domain."""
    parts = [
        f"If a question is {_TOPIC[d]}, {_SAID[level]}."
        for d, level in zip(DOMAINS, wanted, strict=True)
    ]
    return (Message("system", " ".join(parts)),)


def prompt_tokens(
    model: steer.Model, known: Mapping[str, Domain], prefix: tuple[Message, ...] = ()
) -> float:
    """Return the mean number of tokens of a test prompt, the template included."""
    return fmean(
        encode_exchange(model.chat, (*prefix, Message("user", str(asked))), "Yes.").response_start
        for own in known.values()
        for asked in own.test.prompts
    )


def unsteered(model: steer.Model, known: Mapping[str, Domain]) -> dict[str, Any]:
    """Return the tables at λ = 0."""
    start = time.process_time()
    tables = {name: scores(model, own.test) for name, own in known.items()}
    seconds = round(time.process_time() - start, 1)
    return {"scores": tables, "prompt_tokens": prompt_tokens(model, known), "cpu_seconds": seconds}


def combinations(
    model: steer.Model,
    known: Mapping[str, Domain],
    base: Tables,
    knobs: Composition | None,
    settings: Mapping[Wanted, Setting],
) -> Iterator[dict[str, Any]]:
    """Yield what each combination shows, domain by domain up to the first that fails.

    Args:
        model: The model.
        known: The domains.
        base: The tables at λ = 0.
        knobs: The vectors; None for a system message that names the levels.
        settings: The setting of each combination.
    """
    seen: dict[tuple[float, ...], dict[str, Table]] = {}  # settings may serve several
    for wanted, setting in settings.items():
        start = time.process_time()
        tables = seen.setdefault(tuple(setting.values()), {}) if setting else {}
        prefix = () if knobs is not None else message(wanted)
        good = True
        for domain, level in zip(DOMAINS, wanted, strict=True):
            if good:
                if domain not in tables:
                    tables[domain] = scores(model, known[domain].test, knobs, setting, prefix)
                good = reached(share(tables[domain], level), share(base[domain], level))
        yield {
            "wanted": list(wanted),
            "setting": dict(setting),
            "scores": dict(tables),
            "reached": good,
            "prompt_tokens": prompt_tokens(model, known, prefix),
            "cpu_seconds": round(time.process_time() - start, 1),
        }
