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
from steer.demo.measure import (
    Messages,
    Subject,
    asked,
    kl_neutral,
    routes,
    share,
    steered,
    tags_followed,
    vectors,
)

ENDS: Final = {-1: "avoidance", 1: "expert"}
KNOB: Final = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)
Shares = Mapping[str, float]


@dataclass(frozen=True)
class Figures:
    """What was measured; shares lie between 0 and 1.

    Args:
        n: Questions behind each share.
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
    tags: Mapping[tuple[str, str, int], float]
    dose: Mapping[tuple[bool, str, float], Shares]
    combinations: Mapping[tuple[bool, bool, tuple[int, ...]], float]
    spill: Mapping[tuple[bool, bool], float]
    routed: float
    cosines: Mapping[tuple[str, str], float]
    kl: Mapping[tuple[bool, str, int], float]


def measure(subject: Subject, n: int = 100) -> Figures:
    """Measures everything on ``n`` test questions per domain (``n // 3`` per number of tags)."""
    prompts = _prompts(n, seed=0)
    raw = vectors(subject, rescaled=False)
    found = {False: raw, True: vectors(subject, rescaled=True)}
    combinations: dict[tuple[bool, bool, tuple[int, ...]], float] = {}
    spill: dict[tuple[bool, bool], float] = {}
    for rescaled, gated in itertools.product((False, True), (False, True)):
        combinations |= _combinations(subject, prompts, found[rescaled], rescaled, gated)
        spill[rescaled, gated] = _spill(subject, prompts, found[rescaled], gated)
    unit = raw / raw.norm(dim=1, keepdim=True)
    return Figures(
        n=n,
        tags=tags_followed(subject, n),
        dose={
            (rescaled, domain, c): _levels(
                subject.replies(prompts[domain], push=(c * v).expand(n, -1)), domain
            )
            for rescaled, of_all in found.items()
            for domain, v in zip(DOMAINS, of_all, strict=True)
            for c in KNOB
        },
        combinations=combinations,
        spill=spill,
        routed=_routed(subject, prompts),
        cosines={
            (DOMAINS[i], DOMAINS[j]): float(unit[i] @ unit[j])
            for i, j in itertools.combinations(range(len(DOMAINS)), 2)
        },
        kl={
            (rescaled, domain, c): kl_neutral(subject, c * v)
            for rescaled, of_all in found.items()
            for domain, v in zip(DOMAINS, of_all, strict=True)
            for c in ENDS
        },
    )


def _prompts(n: int, seed: int) -> dict[str, list[Messages]]:
    return {d: [asked(q) for q in questions(d, n, seed=seed, split="test")] for d in DOMAINS}


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
