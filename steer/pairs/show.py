"""How pairs print themselves."""

from collections.abc import Sequence
from html import escape
from typing import Any

from steer.pairs.pair import Pair, messages_of

_WIDTH = 72


def as_text(pairs: Sequence[Pair], domains: Sequence[str | None], notes: dict[str, Any]) -> str:
    """Return a few lines for a terminal: the number of pairs per domain, and the first pair.

    Args:
        pairs: The pairs.
        domains: Their domains.
        notes: ``source`` and the number of ``rejected`` rows.

    Returns:
        The text.
    """
    lines = [_headline(pairs, notes)]
    if any(domain is not None for domain in domains):
        lines += [f"  {_name(domain):<20} {_count(pairs, domain)}" for domain in domains]
    if pairs:
        lines += [f"  {label:<20} {text}" for label, text in _first(pairs[0])]
    return "\n".join(lines)


def as_html(pairs: Sequence[Pair], domains: Sequence[str | None], notes: dict[str, Any]) -> str:
    """Return a small table for a notebook: a row per domain with its first pair.

    Args:
        pairs: The pairs.
        domains: Their domains.
        notes: ``source`` and the number of ``rejected`` rows.

    Returns:
        The HTML, all text escaped.
    """
    head = "".join(f"<th>{c}</th>" for c in ("domain", "pairs", "prompt", "chosen", "rejected"))
    rows = []
    for domain in domains:
        first = next(pair for pair in pairs if pair.domain == domain)
        cells = [_name(domain), str(_count(pairs, domain)), *(text for _, text in _first(first))]
        rows.append("".join(f"<td>{escape(cell)}</td>" for cell in cells))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    caption = escape(_headline(pairs, notes))
    return (
        f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _headline(pairs: Sequence[Pair], notes: dict[str, Any]) -> str:
    rejected = f", {notes['rejected']} rows rejected" if notes["rejected"] else ""
    number = f"{len(pairs)} pair{'' if len(pairs) == 1 else 's'}"
    return f"Pairs: {number} from {notes['source']}{rejected}"


def _first(pair: Pair) -> list[tuple[str, str]]:
    last = messages_of(pair.prompt)[-1].content
    texts = (("prompt", last), ("chosen", pair.chosen), ("rejected", pair.rejected))
    return [(label, _short(text)) for label, text in texts]


def _short(text: str) -> str:
    line = repr(text)
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"


def _count(pairs: Sequence[Pair], domain: str | None) -> int:
    return sum(pair.domain == domain for pair in pairs)


def _name(domain: str | None) -> str:
    return "(no domain)" if domain is None else domain
