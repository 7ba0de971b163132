"""Cards and tables as Markdown, for pages that are no notebook."""

import re
from collections.abc import Iterable, Sequence

from steer.show._card import Bar, Card, Table
from steer.show._text import plain

_MARKUP = re.compile(r"([\\`*<|\[\]#])")
_LONGEST = 1000  # characters of a text


def markdown_text(value: object) -> str:
    """Return a text on one line that Markdown shows as it is; a long one loses its middle."""
    return _MARKUP.sub(r"\\\1", plain(" ".join(str(value).split()), _LONGEST))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already."""
    lines = ["|".join(f" {cell} " if cell else " " for cell in row) for row in (head, *rows)]
    return "\n".join(f"|{line}|" for line in (lines[0], "|".join(["---"] * len(head)), *lines[1:]))


def card_markdown(card: Card) -> str:
    """Return the facts, tables and notes of a card, without its title and charts."""
    facts = [(markdown_text(name), markdown_text(value)) for name, value in card.facts]
    parts = [markdown_table(("", ""), facts)] if facts else []
    parts += [_table(block) for block in card.blocks if isinstance(block, Table) and block.rows]
    parts += ["\n".join(f"- {markdown_text(note)}" for note in card.notes)] if card.notes else []
    return "\n\n".join(parts)


def _table(table: Table) -> str:
    """Return the rows of a table, without the columns that are drawn."""
    columns = range(len(table.head))
    kept = [k for k in columns if not any(isinstance(row[k], Bar) for row in table.rows)]
    head, *rows = [[markdown_text(row[k]) for k in kept] for row in (table.head, *table.rows)]
    more = len(table.rest) + table.left_out
    parts = [markdown_text(table.caption)] if table.caption else []
    parts += [markdown_table(head, rows), *([f"… {more} more rows"] if more else [])]
    return "\n\n".join(parts)
