"""A card as lines of text, for `print` and wherever colours are not understood."""

import math
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from unicodedata import east_asian_width

from steer.show._card import Bar, Card, Cell, Table
from steer.show._chart import Bars, Chart, Curves, Spans, scale

BAR = 12  # characters of a bar
_WIDE = 48  # characters of a cell
_LONG = 240  # characters of a fact
_NOTE = 96  # characters of a note's line
_FEWEST = 6  # values that make a picture
_MOST = 64  # characters of a row of levels
_SERIES = 4  # curves up to which all are shown, else none
_EIGHTHS = " ▏▎▍▌▋▊▉"
_LEVELS = "▁▂▃▄▅▆▇█"


def card_text(card: Card) -> str:
    """Return a card as text, without a final line break."""
    lines = [plain(card.title, _LONG)]
    names = max((width(name) for name, _ in card.facts), default=0)
    lines += [f"  {pad(plain(n), names)}  {plain(value, _LONG)}" for n, value in card.facts]
    for block in card.blocks:
        lines += [f"  {line}" for line in _block(block)]
    for note in card.notes:
        lines += [f"  {line}" for line in textwrap.wrap(plain(note, 1000), _NOTE)]
    return "\n".join(line.rstrip() for line in lines)


def plain(text: object, most: int = _WIDE) -> str:
    """Return a text on one line, cut in its middle: what cannot be printed is written out."""
    whole = str(text)
    if len(whole) > 2 * most:  # what is cut away anyway is not looked at
        whole = f"{whole[:most]}…{whole[-most:]}"
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in whole)
    if len(line) <= most:
        return line
    tail = most // 2
    return f"{line[: most - tail - 1]}…{line[-tail:]}"


def readable(value: object) -> str:
    """Return the text of a value, or its type where the text cannot be read."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001  # of another's class, and one value among many
        return f"{type(value).__name__} whose text cannot be read"


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, to: int, *, right: bool = False) -> str:
    """Return a text with spaces up to a width."""
    space = " " * (to - width(text))
    return space + text if right else text + space


def bar_text(bar: Bar) -> str:
    """Return a bar as block characters, or a point between the ends of its interval."""
    if not bar.drawn:
        return " " * BAR
    if bar.ends is not None and all(map(math.isfinite, bar.ends)):
        return _whisker(bar, bar.ends)
    zero, at = bar.share(0.0) * BAR, bar.share(bar.value) * BAR
    if bar.low == 0:
        eighths = round(at * 8)
        part = _EIGHTHS[eighths % 8] if eighths % 8 else ""
        return ("█" * (eighths // 8) + part).ljust(BAR)
    start, stop = sorted((round(zero), round(at)))
    if start == stop and bar.value:  # what is not zero is seen
        start, stop = (start - 1, stop) if bar.value < 0 else (start, stop + 1)
    cells = ["█" if start <= k < stop else " " for k in range(BAR)]
    cells.insert(round(zero), "│")
    return "".join(cells)


def _whisker(bar: Bar, interval: tuple[float, float]) -> str:
    low, at, high = (round(bar.share(v) * (BAR - 1)) for v in (interval[0], bar.value, interval[1]))
    cells = ["─" if low < k < high else "├" if k == low else "┤" if k == high else "·"
             for k in range(BAR)]  # fmt: skip
    cells[at] = "●"
    return "".join(cells)


def levels(values: Sequence[float]) -> str:
    """Return numbers as blocks of eight heights from 0, and a space where one is not finite."""
    low, high = scale(values)
    if not 0 < high - low < math.inf:
        return _LEVELS[0] * len(values)
    return "".join(
        _LEVELS[round((v - low) / (high - low) * 7)] if math.isfinite(v) else " " for v in values
    )


def chart_lines(chart: Chart) -> list[tuple[str, str, str]]:
    """Return the name, the row of blocks and the range of each line of bars or of a few curves."""
    rows: dict[str, Sequence[float]] = {}
    if isinstance(chart, Bars):
        rows[chart.caption] = chart.values
    elif isinstance(chart, Curves) and len(chart.series) <= _SERIES:
        for name, one in chart.drawn.items():
            named = f"{chart.caption}, {name}" if name else chart.caption
            rows[named] = [point[1] for point in one.points]
    return [
        (plain(name), levels(values), _range(values))
        for name, values in rows.items()
        if _FEWEST <= len(values) <= _MOST and any(map(math.isfinite, values))
    ]


def _range(values: Sequence[float]) -> str:
    finite = [v for v in values if math.isfinite(v)]
    return f"{min(finite):.3g} to {max(finite):.3g}"


def _block(block: Table | Chart | Spans) -> list[str]:
    if isinstance(block, Table):
        return _table(block)
    lines = [] if isinstance(block, Spans) else chart_lines(block)
    names = max((width(name) for name, _, _ in lines), default=0)
    return [f"{pad(name, names)}  {row}  {ends}" for name, row, ends in lines]


def _table(table: Table) -> list[str]:
    if not table.rows:
        return []
    cells = [[_cell(cell) for cell in row] for row in (table.head, *table.rows)]
    widths = [max(map(width, column)) for column in zip_longest(*cells, fillvalue="")]
    lines = [plain(table.caption, _NOTE)] if table.caption else []
    if table.texts:
        for texts in table.rows:
            for name, cell in zip(table.head, texts, strict=True):
                text = f"{name}: {plain(cell, _LONG)}"
                lines += textwrap.wrap(text, _NOTE, subsequent_indent="    ")
        return lines
    for row in cells:
        padded = (pad(c, w, right=k >= table.words) for k, (c, w) in enumerate(zip(row, widths)))  # noqa: B905
        lines.append("  ".join(padded).rstrip())
    more = len(table.rest) + table.left_out
    return [*lines, f"… {more} more rows"] if more else lines


def _cell(cell: Cell) -> str:
    return bar_text(cell) if isinstance(cell, Bar) else plain(cell)
