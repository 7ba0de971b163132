"""A card for rich, as wide as the terminal, and as plain lines of text for `print`."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import replace

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from steer.show._card import Bar, Card, Cell, Table
from steer.show._chart import Spans
from steer.show._look import PALETTE, hexadecimal, ink
from steer.show._text import bar_text, chart_lines, plain

_FACT, _NOTE = 240, 1000  # characters
_LINE = 96  # columns of a note's line
_ENDLESS = 100_000  # columns of plain text, which is not wrapped


def card_text(card: Card) -> str:
    """Return a card as text, without coloured spans and without a final line break."""
    plainly = replace(card, blocks=tuple(b for b in card.blocks if not isinstance(b, Spans)))
    out = io.StringIO()
    console = Console(
        file=out, width=_ENDLESS, color_system=None, force_terminal=False, force_jupyter=False
    )
    console.print(card_terminal(plainly))
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip("\n").split("\n"))


def card_terminal(card: Card) -> Group:
    """Return a card as a rich renderable."""
    title = Text(plain(card.title, _FACT), style="bold")
    return Group(title, *(Padding(part, (0, 0, 0, 2), expand=False) for part in _parts(card)))


def _parts(card: Card) -> Iterator[RenderableType]:
    if card.facts:
        facts = [(plain(name), plain(value, _FACT)) for name, value in card.facts]
        yield _grid(("dim", ""), facts)
    for block in card.blocks:
        if isinstance(block, Table):
            yield from _table(block)
        elif isinstance(block, Spans):
            yield _spans(block)
        else:
            yield _grid(("dim", PALETTE[0], ""), chart_lines(block))
    for note in card.notes:
        yield Constrain(Text(plain(note, _NOTE), style="italic"), _LINE)


def _grid(styles: Iterable[str], rows: Iterable[Iterable[str]]) -> Grid:
    """Return rows of texts, of which the last may be folded."""
    grid = Grid.grid(padding=(0, 2))
    *names, last = styles
    for style in names:
        grid.add_column(style=style, no_wrap=True)
    grid.add_column(style=last, overflow="fold")
    for row in rows:
        grid.add_row(*map(Text, row))
    return grid


def _table(table: Table) -> Iterator[RenderableType]:
    if not table.rows:
        return
    if table.caption:
        yield Text(plain(table.caption, _FACT), style="dim")
    if table.texts:
        for texts in table.rows:
            said = [(f"{n}:", plain(t, _FACT)) for n, t in zip(table.head, texts, strict=True)]
            yield Constrain(_grid(("dim", ""), said), _LINE)
        return
    grid = Grid(box=None, pad_edge=False, header_style="dim")
    for k, name in enumerate(table.head):
        words = k < table.words
        drawn = any(isinstance(row[k], Bar) for row in table.rows if k < len(row))
        grid.add_column(
            Text(plain(name)),
            justify="left" if words or drawn else "right",
            overflow="fold",
            no_wrap=drawn or not words,
        )
    for row in table.rows:
        grid.add_row(*map(_cell, row))
    yield grid
    if more := len(table.rest) + table.left_out:
        yield Text(f"… {more} more rows", style="dim")


def _cell(cell: Cell) -> Text:
    if isinstance(cell, Bar):
        return Text(bar_text(cell), style=PALETTE[1] if cell.value < 0 else PALETTE[0])
    return Text(plain(cell))


def _spans(block: Spans) -> Text:
    found = Text()
    for k, (piece, colour) in enumerate(zip(block.pieces, block.colours, strict=True)):
        found.append(" ▌ " if k == block.split else "")
        found.append(f"{plain(piece)} ", style=f"{ink(colour)} on {hexadecimal(colour)}")
    return found
