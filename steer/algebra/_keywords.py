"""Suggestions for keyword arguments that are neither a domain nor an argument."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from steer.errors import CompositionError

_LAYERS = "a vector acts at its own layers; restrict it: vector[16], or vector[10:20]"
_TOKENS = "scope says on which tokens to act: scope='response', Part(vector, scope='response')"
_STRENGTH = "the coefficient is the second argument, lm.steered(vector, 0.8), or a domain's keyword"
_WRITING = "pass it to lm.generate(…), inside the context"
_PART = "each domain has its own: Part(vector, operator='add', scope='response')"
_MEANT = {
    name: advice
    for names, advice in (
        ("layer layers sites", _LAYERS),
        ("position positions at token_pos tokens", _TOKENS),
        ("alpha coef coeff coefficient coefficients multiplier scale strength", _STRENGTH),
        ("batch_size do_sample max_new_tokens temperature", _WRITING),
        ("operator scope", _PART),
    )
    for name in names.split()
}


def check_keywords(
    given: Mapping[str, object], domains: Iterable[str], arguments: Iterable[str] = ()
) -> None:
    """Raise for keywords that name no domain, with a suggestion."""
    known, own = list(domains), list(arguments)
    unknown = [name for name in given if name not in known]
    if not unknown:
        return
    among = f"a domain among {known}" + (f", or {', '.join(own)}" if own else "")
    raise CompositionError(
        "unknown domain or argument",
        found=", ".join(f"{n}={given[n]!r}"[:60] for n in unknown[:4]),
        expected=among,
        do=meant(unknown[0], [*known, *own]) or "check the spelling, or compose a vector for it",
    )


def meant(name: str, known: Iterable[str]) -> str | None:
    """Return a suggestion for an unknown keyword, if there is one."""
    near = get_close_matches(name, list(known), n=1)
    return _MEANT.get(name, f"write {near[0]}" if near else None)
