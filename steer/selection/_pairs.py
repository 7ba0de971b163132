"""Pairs by domain: those to choose with, and those that a choice never sees."""

import warnings
from collections.abc import Mapping, Sequence

from steer.algebra import Composition
from steer.errors import SelectionError
from steer.measure._data import pairs_by_domain
from steer.pairs import Pairs, as_pairs
from steer.selection._candidates import Candidate

ByDomain = Mapping[str, Pairs]


def named(
    composition: Composition, pairs: Pairs | ByDomain, *, one: bool = False
) -> dict[str, Pairs]:
    """Return pairs by domain; those of a composition of one domain may name none."""
    pairs = pairs if isinstance(pairs, Mapping) else as_pairs(pairs)
    if isinstance(pairs, Pairs) and len(composition.domains) == 1 and (one or not pairs.domains):
        pairs = {composition.domains[0]: pairs}
    return pairs_by_domain(pairs)


def split_by_domain(
    held: ByDomain, test: Pairs | ByDomain | None, composition: Composition, seed: int, *, one: bool
) -> tuple[dict[str, Pairs], dict[str, Pairs]]:
    """Return the pairs to choose with and those never seen, by domain."""
    if test is None:
        halves = {name: part.split(0.5, 0.5, seed=seed) for name, part in held.items()}
        return {n: a for n, (a, _) in halves.items()}, {n: b for n, (_, b) in halves.items()}
    unseen = named(composition, test, one=one)
    lacking = [name for name in held if name in composition.domains and name not in unseen]
    used = {pair.text for part in held.values() for pair in part}
    shared = sum(pair.text in used for part in unseen.values() for pair in part)
    if shared or lacking:
        raise SelectionError(
            "test pairs are also used to choose" if shared else "test pairs lack a domain",
            found=f"{shared} pairs in both pairs and test" if shared else f"none of {lacking}",
            expected="pairs of every domain that the selection never sees",
            do="split once: held_out, test = pairs.split(0.5, 0.5)",
        )
    return dict(held), unseen


def check_alternatives(given: object, pairs: Pairs | ByDomain) -> None:
    """Refuse alternatives that have the names of domains: vectors to use together may be meant."""
    domains = {*pairs} if isinstance(pairs, Mapping) else {pair.domain for pair in pairs}
    alike = [name for name in given if name in domains] if isinstance(given, Mapping) else []
    if alike:
        raise SelectionError(
            "these vectors could be alternatives, or be used together",
            found=f"vectors by name, and pairs of domains of the same names: {alike}",
            expected="alternatives of other names, or a composition",
            do="together: select(model, compose(vectors), pairs); one of them: pass a list",
        )


def warn_of_training(candidates: Sequence[Candidate], pairs: ByDomain) -> None:
    """Warn where a vector was made from the very pairs that are to choose and to test."""
    marks = {part.fingerprint for part in pairs.values()}
    marks |= {p.of_domain(d).fingerprint for p in pairs.values() for d in p.domains}
    if any(candidate.pairs_fingerprint in marks for candidate in candidates):
        warnings.warn(
            "these held-out pairs are those that the vector was made from, on which any direction "
            "looks good; split them first: train, held_out = pairs.split(0.6, 0.4)",
            stacklevel=3,
        )
