"""A card for rich: the same as the text, in colour and as wide as the terminal."""

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from steer.show._card import Bar, Card, Cell, Table
from steer.show._chart import Chart, Spans
from steer.show._look import PALETTE, hexadecimal, ink
from steer.show._text import bar_text, chart_lines, plain

_LONG = 1000


def card_terminal(card: Card) -> Group:
    """Return a card as a rich renderable."""
    return Group(*_parts(card))


def _parts(card: Card) -> Iterator[RenderableType]:
    yield Text(plain(card.title, _LONG), style="bold")
    if card.facts:
        grid = Grid.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in card.facts:
            grid.add_row(Text(plain(name)), Text(plain(value, _LONG)))
        yield Padding(grid, (0, 0, 0, 2))
    for block in card.blocks:
        if isinstance(block, Table):
            yield from _table(block)
        elif isinstance(block, Spans):
            yield _spans(block)
        else:
            yield from _chart(block)
    for note in card.notes:
        yield Padding(Text(plain(note, _LONG), style="italic"), (0, 0, 0, 2))


def _spans(block: Spans) -> Text:
    found = Text()
    for k, (piece, colour) in enumerate(zip(block.pieces, block.colours, strict=True)):
        found.append(" ▌ " if k == block.split else "")
        found.append(f"{plain(piece)} ", style=f"{ink(colour)} on {hexadecimal(colour)}")
    return found


def _chart(block: Chart) -> Iterator[RenderableType]:
    lines = chart_lines(block)
    if not lines:
        return
    grid = Grid.grid(padding=(0, 2))
    for name, row, ends in lines:
        grid.add_row(Text(name, style="dim"), Text(row, style=PALETTE[0]), Text(ends))
    yield Padding(grid, (0, 0, 0, 2))


def _table(table: Table) -> Iterator[RenderableType]:
    if not table.rows:
        return
    if table.caption:
        yield Padding(Text(plain(table.caption, _LONG), style="dim"), (0, 0, 0, 2))
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim", show_edge=False)
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
        grid.add_row(*(_cell(cell) for cell in row))
    yield Padding(grid, (0, 0, 0, 2))
    if more := len(table.rest) + table.left_out:
        yield Padding(Text(f"… {more} more rows", style="dim"), (0, 0, 0, 2))


def _cell(cell: Cell) -> Text:
    if isinstance(cell, Bar):
        return Text(bar_text(cell), style=PALETTE[1] if cell.value < 0 else PALETTE[0])
    return Text(plain(cell))
