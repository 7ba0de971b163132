"""All figures on the demo model's card, measured on the test topics."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from steer.demo.data import DOMAINS, LEVELS
from steer.demo.judge import judge
from steer.demo.language import questions
from tests.demo_model.measure import (
    Messages,
    Subject,
    asked,
    kl_neutral,
    routes,
    share,
    small_talk,
    steered,
    tags_followed,
    vectors,
)

ENDS: Final = {-1: "avoidance", 1: "expert"}
KNOB: Final = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)
Shares = Mapping[str, float]


@dataclass(frozen=True)
class Figures:
    """All measurements; shares are in [0, 1].

    Args:
        n: Test questions per domain behind each share, but for the next two.
        n_ungated: Those behind the figures without a gate.
        n_tags: Those behind each share of tags followed.
        tags: Share at the tagged level by (domain, level, number of tags).
        dose: Share of each level by (rescaled, domain, coefficient), steered in its own domain.
        combinations: Least share at the wanted level over the domains, by (rescaled, gated,
            coefficients of the three domains).
        spill: Largest change of any level's share in another domain when one domain is moved
            to -1 or +1, by (rescaled, gated).
        routed: Share of prompts that the gate gives to their own domain.
        cosines: Between the vectors of two domains.
        kl: KL on small talk in nats per token by (rescaled, domain, coefficient), no gate.
    """

    n: int
    n_ungated: int
    n_tags: int
    tags: Mapping[tuple[str, str, int], float]
    dose: Mapping[tuple[bool, str, float], Shares]
    combinations: Mapping[tuple[bool, bool, tuple[int, ...]], float]
    spill: Mapping[tuple[bool, bool], float]
    routed: float
    cosines: Mapping[tuple[str, str], float]
    kl: Mapping[tuple[bool, str, int], float]


def measure(subject: Subject, n: int = 200, *, n_ungated: int = 20, n_tags: int = 60) -> Figures:
    """Measure everything on n test questions per domain, or as many as the options say."""
    every = {True: _prompts(n), False: _prompts(n_ungated)}
    found = {rescaled: vectors(subject, rescaled=rescaled) for rescaled in (False, True)}
    combinations: dict[tuple[bool, bool, tuple[int, ...]], float] = {}
    spill: dict[tuple[bool, bool], float] = {}
    for rescaled, gated in itertools.product((False, True), (False, True)):
        asked_of = every[gated]
        combinations |= _combinations(subject, asked_of, found[rescaled], rescaled, gated)
        spill[rescaled, gated] = _spill(subject, asked_of, found[rescaled], gated)
    return Figures(
        n=n,
        n_ungated=n_ungated,
        n_tags=n_tags,
        tags=tags_followed(subject, n_tags),
        dose=_dose(subject, every[True], found),
        combinations=combinations,
        spill=spill,
        routed=_routed(subject, every[True]),
        cosines=_cosines(found[False]),
        kl=_kl(subject, found),
    )


def _dose(
    subject: Subject,
    prompts: Mapping[str, list[Messages]],
    found: Mapping[bool, torch.Tensor],
) -> dict[tuple[bool, str, float], Shares]:
    """Shares of the levels, each domain steered by its own vector."""
    dose: dict[tuple[bool, str, float], Shares] = {}
    for (rescaled, of_all), c in itertools.product(found.items(), KNOB):
        for domain, vector in zip(DOMAINS, of_all, strict=True):
            push = (c * vector).expand(len(prompts[domain]), -1)
            texts = subject.replies(prompts[domain], push=push)
            dose[rescaled, domain, c] = _levels(texts, domain)
    return dose


def _cosines(raw: torch.Tensor) -> dict[tuple[str, str], float]:
    unit = raw / raw.norm(dim=1, keepdim=True)
    return {
        (DOMAINS[i], DOMAINS[j]): float(unit[i] @ unit[j])
        for i, j in itertools.combinations(range(len(DOMAINS)), 2)
    }


def _kl(subject: Subject, found: Mapping[bool, torch.Tensor]) -> dict[tuple[bool, str, int], float]:
    talk = small_talk(subject)
    return {
        (rescaled, domain, c): kl_neutral(subject, talk, c * vector)
        for rescaled, of_all in found.items()
        for domain, vector in zip(DOMAINS, of_all, strict=True)
        for c in ENDS
    }


def _prompts(n: int) -> dict[str, list[Messages]]:
    return {d: [asked(q) for q in questions(d, n, split="test")] for d in DOMAINS}


def _combinations(
    subject: Subject,
    prompts: Mapping[str, list[Messages]],
    directions: torch.Tensor,
    rescaled: bool,
    gated: bool,
) -> dict[tuple[bool, bool, tuple[int, ...]], float]:
    """The least share over the domains for each of the eight avoidance/expert combinations."""
    found = {}
    for signs in itertools.product(ENDS, repeat=len(DOMAINS)):
        texts = _by_domain(subject, prompts, directions, signs, gated)
        found[rescaled, gated, signs] = min(
            share(texts[domain], domain, ENDS[sign])
            for domain, sign in zip(DOMAINS, signs, strict=True)
        )
    return found


def _spill(
    subject: Subject,
    prompts: Mapping[str, list[Messages]],
    directions: torch.Tensor,
    gated: bool,
) -> float:
    """The largest change of any level's share in the domains that are not moved."""
    base = {d: _levels(subject.replies(prompts[d]), d) for d in DOMAINS}
    changes = []
    for i, sign in itertools.product(range(len(DOMAINS)), ENDS):
        coefficients = [float(sign) if j == i else 0.0 for j in range(len(DOMAINS))]
        texts = _by_domain(subject, prompts, directions, coefficients, gated)
        for other in (d for j, d in enumerate(DOMAINS) if j != i):
            moved = _levels(texts[other], other)
            changes += [abs(moved[name] - base[other][name]) for name in moved]
    return max(changes)


def _by_domain(
    subject: Subject,
    prompts: Mapping[str, list[Messages]],
    directions: torch.Tensor,
    coefficients: Sequence[float],
    gated: bool,
) -> dict[str, list[str]]:
    every = [prompt for domain in DOMAINS for prompt in prompts[domain]]
    texts = iter(steered(subject, every, directions, coefficients, gated=gated))
    return {domain: list(itertools.islice(texts, len(prompts[domain]))) for domain in DOMAINS}


def _routed(subject: Subject, prompts: Mapping[str, list[Messages]]) -> float:
    right = [DOMAINS[i] == domain for domain in DOMAINS for i in routes(subject, prompts[domain])]
    return sum(right) / len(right)


def _levels(texts: Sequence[str], domain: str) -> dict[str, float]:
    """Share of each level; a reply that is unclear or of another domain is ``"unclear"``."""
    found = [judge(text) for text in texts]
    counts = Counter(j.level if j.domain == domain and j.level else "unclear" for j in found)
    return {name: counts[name] / len(texts) for name in (*LEVELS, "unclear")}
