"""What a search is asked: pairs by domain, split, and refused where they do not go together."""

import warnings
from collections.abc import Mapping, Sequence

from steer._check import as_integer
from steer.algebra import Composition
from steer.errors import SelectionError
from steer.measure import NeutralText
from steer.measure._data import pairs_by_domain
from steer.pairs import Pairs, Prompt, as_pairs
from steer.selection._candidates import Candidate
from steer.selection._setting import Limits

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
    held_out: ByDomain,
    test: Pairs | ByDomain | None,
    composition: Composition,
    seed: int,
    *,
    one: bool = False,
) -> tuple[dict[str, Pairs], dict[str, Pairs]]:
    """Return the pairs to choose with and those never seen, by domain."""
    if test is None:
        halves = {name: part.split(0.5, 0.5, seed=seed) for name, part in held_out.items()}
        return {n: a for n, (a, _) in halves.items()}, {n: b for n, (_, b) in halves.items()}
    unseen = named(composition, test, one=one)
    lacking = [name for name in held_out if name in composition.domains and name not in unseen]
    used = {pair.text for part in held_out.values() for pair in part}
    shared = sum(pair.text in used for part in unseen.values() for pair in part)
    if shared or lacking:
        raise SelectionError(
            "test pairs are also used to choose" if shared else "test pairs lack a domain",
            found=f"{shared} pairs in both held_out and test" if shared else f"none of {lacking}",
            expected="pairs of every domain that the selection never sees",
            do="split once: held_out, test = pairs.split(0.5, 0.5)",
        )
    return dict(held_out), unseen


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
            "looks good; split them first: train, held_out = pairs.split(0.7, 0.3)",
            stacklevel=3,
        )


def check(
    limits: Limits,
    moved: Sequence[str],
    pairs: ByDomain,
    neutral: Sequence[Prompt] | NeutralText | None,
) -> None:
    """Refuse limits, and pairs and limits, that cannot be used."""
    if not isinstance(limits, Limits):
        raise SelectionError(
            "these are no limits",
            found=repr(limits),
            expected="Limits of steer.selection",
            do="limits=Limits(kl=1.0)",
        )
    if not moved:
        raise SelectionError(
            "no domain is asked to move",
            found=f"pairs of {sorted(pairs)}",
            expected="pairs of a domain that the composition has",
            do="name pairs and vectors alike",
        )
    lacking = [n for n in limits.names if n != "off_target" and neutral is None]
    if "off_target" in limits.names and len(pairs) == len(moved):
        lacking.append("off_target")
    if lacking:
        raise SelectionError(
            "a limit is set on what is not measured",
            found=f"limits on {lacking}",
            expected="neutral text for KL and perplexity, pairs of further domains for off_target",
            do="pass neutral=[...], add pairs of domains that must stay, or drop the limit",
        )


def check_budget(budget: int | None) -> None:
    """Refuse a budget that is no number of settings."""
    if budget is not None and (as_integer(budget) or 0) < 1:
        raise SelectionError(
            "this budget allows no search",
            found=f"budget {budget!r}",
            expected="a whole number of settings, at least 1",
            do="budget=64, or leave it out",
        )
