"""Checks of preference pairs, by text and moments, for problems that weaken a vector."""

import warnings
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from steer.algebra._provenance import ERROR, MIN_PAIRS
from steer.errors import DataWarning
from steer.extract._moments import Moments
from steer.extract._responses import MOST_DIFFERENT, Responses
from steer.extract._shuffled import layers_read

_Key = tuple[str | None, str]

# If two responses are chosen 80 : 20, the mean keeps 0.6 of the whole difference between them,
# whatever was asked.
IMBALANCE = 0.8
# Pairs that steer well are often told apart by their length: 100% of 60 cheerful pairs at a mean
# factor of 1.5. A factor of two in nearly all pairs is more than a style adds.
MUCH_LONGER = 0.9
# A cosine of 0.9: 81% of the variance of single differences lies along their mean. Pairs that
# steer well have 0.05 to 0.65.
NEARLY_PARALLEL = 0.9
# A standard deviation along the mean of half its length: one pair in 20 points the other way if
# only the sign varies, one in 44 if the lengths are Gaussian. Pairs that agree and differ in
# length only stay below it.
SPREAD = 0.5
# Rounding the stream itself to bfloat16 changes it by up to 2⁻⁸ of its length.
NO_DIFFERENCE = 2.0**-8


def problems(
    moments: Mapping[_Key, Moments],
    responses: Mapping[str | None, Responses],
    *,
    noise: bool = True,
) -> tuple[str, ...]:
    """Return the problems of the pairs of a recording, one sentence each.

    Without `noise`, error/norm is omitted, because the statistics of a vector report it too.
    """
    domains = tuple(dict.fromkeys(domain for domain, _ in moments))
    found = []
    for domain in domains:
        own = {position: m for (d, position), m in moments.items() if d == domain}
        said = [*_of_texts(responses.get(domain)), *_of_positions(own, noise)]
        found += [sentence if len(domains) == 1 else f"{domain}: {sentence}" for sentence in said]
    return tuple(found)


def warn_of(found: Sequence[str]) -> None:
    """Issue one `DataWarning` with all problems, at the level of the caller's caller."""
    if found:
        said = "\n".join(f"  - {sentence}" for sentence in found)
        warnings.warn(
            f"a vector of these pairs may not steer the intended behaviour:\n{said}",
            DataWarning,
            stacklevel=3,
        )


def _of_texts(responses: Responses | None) -> Iterator[str]:
    """Yield the problems that the texts alone show."""
    if responses is None:
        return
    n, counts = responses.pairs, responses.counts
    if n < (MIN_PAIRS if counts is None else MOST_DIFFERENT):
        return  # chance makes lengths agree in a few pairs, but no few texts out of twice as many
    if counts is None:
        longer, shorter = responses.much_longer, responses.much_shorter
        for word, count in (("longer than", longer), ("shorter than", shorter)):
            if count >= MUCH_LONGER * n:
                yield (
                    f"the chosen response is much {word} the rejected one in {count} of {n} pairs, "
                    "by a factor of two or more: the direction may encode length. Write "
                    "responses of similar length"
                )
        return
    yield (
        f"the {2 * n} responses are only {len(counts)} different texts ({_listed(counts)}): the "
        "direction encodes which of these is written, not what it means. Write the responses out "
        "as sentences"
    )
    fixed = sum(max(sides) for sides in counts.values()) / (2 * n)
    if fixed >= IMBALANCE and n >= MIN_PAIRS:
        text = max(counts, key=lambda name: counts[name][0] - counts[name][1])
        chosen, rejected = counts[text]
        yield (
            f"which response is chosen hardly depends on the prompt: {text[:20]!r} is chosen "
            f"{chosen} times and rejected {rejected} times. Add prompts for which another response "
            "is wanted"
        )


def _of_positions(moments: Mapping[str, Moments], noise: bool) -> Iterator[str]:
    """Yield the problems that the moments of one domain show."""
    every = {position: m for position, m in moments.items() if m.count >= MIN_PAIRS}
    blind = [position for position, m in every.items() if _sees_nothing(m)]
    rest = {position: m for position, m in every.items() if position not in blind}
    parallel = [position for position, m in rest.items() if _is_parallel(m)]
    if blind:
        yield (
            f"chosen and rejected do not differ at {_places(blind, moments)}: these tokens do "
            "not depend on the responses. Record at template or response_mean"
        )
    if noise and rest and all(map(_is_noise, rest.values())):
        yield (
            f"error/norm is above {ERROR:g} at every position and layer: more than a quarter of "
            "the direction's squared length is noise. Record more pairs, or pairs that agree more"
        )
    if parallel:
        yield (
            f"the direction is nearly parallel to those of label-shuffled controls at "
            f"{_places(parallel, moments)}: the pairs differ along one line and disagree on its "
            "sign, as with letters. Look for what is chosen in some pairs and rejected in others"
        )


def _sees_nothing(m: Moments) -> bool:
    """Return whether differences are within rounding of the stream at every layer."""
    total = m.second.sum(dim=-1) / m.count + m.difference.square().sum(dim=-1)
    return bool((total.sqrt() <= NO_DIFFERENCE * m.norm).all())


def _is_noise(m: Moments) -> bool:
    """Return whether error/norm is above its threshold at every layer."""
    error = torch.linalg.vector_norm(m.standard_error, dim=-1)
    return bool((error > ERROR * torch.linalg.vector_norm(m.difference, dim=-1)).all())


def _is_parallel(m: Moments) -> bool:
    """Return whether differences spread widely along their mean at most layers with controls."""
    if m.shuffled is None:
        return False
    rows = layers_read(len(m.norm))
    cosine = m.shuffled.cosine(m.difference)
    variance = cosine.square() * m.second[rows].sum(dim=-1) / (m.count - 1)
    spread = variance >= SPREAD**2 * m.difference[rows].square().sum(dim=-1)
    found: Bool[Tensor, " layer"] = (cosine >= NEARLY_PARALLEL) & spread
    return 2 * int(found.sum()) > len(rows)


def _listed(counts: Mapping[str, object]) -> str:
    return ", ".join(repr(text[:20]) for text in counts)


def _places(some: Sequence[str], every: Mapping[str, object]) -> str:
    if len(some) == len(every) > 1:
        return f"all {len(every)} positions"
    return ", ".join(some[:4]) + (f" and {len(some) - 4} more" if len(some) > 4 else "")
