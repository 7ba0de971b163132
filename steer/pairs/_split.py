"""Splitting pairs: reproducibly, evenly over domains, and with every prompt in one part only."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import accumulate

from steer._check import as_integer, integer, is_number
from steer.errors import PairsError
from steer.pairs._pair import Pair, canonical, messages_of

_ROUNDING = 1e-9


def part_numbers(pairs: Sequence[Pair], parts: Sequence[float], seed: int) -> tuple[int, ...]:
    """Return the number of the part of each pair.

    Prompts are ordered by ``sha256(seed, prompt)`` within their domain, the domains are
    interleaved evenly, and the sequence is cut at the wanted sizes.
    """
    number = integer("seed", seed)
    ends = _part_ends(parts, len(pairs))
    prompts = [canonical(messages_of(pair.prompt)) for pair in pairs]
    sizes = Counter(prompts)
    part_of = {}
    start = 0
    for prompt in _ordered_prompts(pairs, prompts, number):
        middle = 2 * start + sizes[prompt]
        part_of[prompt] = next(part for part, end in enumerate(ends) if middle <= 2 * end)
        start += sizes[prompt]
    numbers = tuple(part_of[prompt] for prompt in prompts)
    _check_domains(pairs, numbers, len(ends))
    return numbers


def _ordered_prompts(pairs: Sequence[Pair], prompts: Sequence[str], seed: int) -> list[str]:
    """Return the distinct prompts in hashed order, with domains evenly interleaved."""
    domains: defaultdict[str, set[str]] = defaultdict(set)
    for pair, prompt in zip(pairs, prompts, strict=True):
        domains[prompt].add(f"name {pair.domain}" if pair.domain is not None else "no name")
    strata: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for prompt in sorted(domains, key=lambda text: _digest(seed, text)):
        strata[tuple(sorted(domains[prompt]))].append(prompt)
    places = [
        ((2 * rank + 1) / (2 * len(stratum)), name, prompt)
        for name, stratum in strata.items()
        for rank, prompt in enumerate(stratum)
    ]
    return [prompt for _, _, prompt in sorted(places)]


def _digest(seed: int, prompt: str) -> str:
    return hashlib.sha256(f"{seed}\n{prompt}".encode()).hexdigest()


def _part_ends(parts: Sequence[float], total: int) -> list[int]:
    """Return where each part ends in a sequence of ``total`` pairs; the last end is ``total``."""
    whole = [n for part in parts if (n := as_integer(part)) is not None]
    shares = [float(part) for part in parts if is_number(part) and as_integer(part) is None]
    counts = len(whole) == len(parts)
    known: list[float] = [*whole] if counts else shares
    sums = list(accumulate(known))
    most, rounding = (total, 0) if counts else (1.0, _ROUNDING)
    fits = len(known) == len(parts) and all(part > 0 for part in known)
    if not total or not parts or not fits or sums[-1] > most + rounding:
        raise _bad_sizes(parts, total)
    rest = most - sums[-1]
    if rest > rounding and len(parts) > 1:
        raise _left_over(parts, rest, total)
    ends = [int(s) if counts else min(total, int(s * total + 0.5)) for s in sums]
    return [*ends, total] if rest > rounding else [*ends[:-1], total]


def _left_over(parts: Sequence[float], rest: float, total: int) -> PairsError:
    sizes = ", ".join(f"{part:g}" for part in (*parts, rest))
    return PairsError(
        "the parts leave pairs over",
        found=f"{', '.join(f'{part:g}' for part in parts)} of {total} pairs, and {rest:g} more",
        expected="sizes that add up to all pairs, or one size, with the rest as the second part",
        do=f"name every part: split({sizes})",
    )


def _bad_sizes(parts: Sequence[float], total: int) -> PairsError:
    sizes = ", ".join(f"{part!r}"[:40] for part in parts)
    return PairsError(
        "pairs cannot be divided into parts of these sizes",
        found=f"{sizes or 'no size'}, for {total} pairs",
        expected=f"fractions (float) that sum to at most 1.0, or numbers of pairs (int) that sum "
        f"to at most {total}, all above 0",
        do="write for example split(0.8, 0.2) or split(100, 50)",
    )


def _check_domains(pairs: Sequence[Pair], numbers: Sequence[int], parts: int) -> None:
    there = {(number, pair.domain) for pair, number in zip(pairs, numbers, strict=True)}
    for domain in dict.fromkeys(pair.domain for pair in pairs):
        lacking = [number for number in range(parts) if (number, domain) not in there]
        if lacking:
            mine = [pair for pair in pairs if pair.domain == domain]
            different = len({messages_of(pair.prompt) for pair in mine})
            raise PairsError(
                f"part {lacking[0]} (counted from 0) would have no pair"
                + ("" if domain is None else f" of domain {domain!r}"),
                found=f"{len(mine)} pairs with {different} different prompts for {parts} parts",
                expected="for each domain at least one pair in every part; pairs with the same "
                "prompt stay together",
                do="ask for fewer or larger parts, or load more pairs",
            )
