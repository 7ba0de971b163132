"""Tables as Markdown."""

from collections.abc import Iterable, Sequence


def markdown(title: str, head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Return a table under its title."""
    table = [head, ["---"] * len(head), *lines]
    body = "\n".join("| " + " | ".join(map(str, line)) + " |" for line in table)
    return f"## {title}\n\n{body}\n"


def number(value: float | None) -> str:
    """Return a number with two decimals, a dash where there is none."""
    return "–" if value is None else f"{value:.2f}"
