"""Texts, bars and charts as characters, for wherever pictures and colours are not understood."""

import math
from collections.abc import Sequence

from steer.show._card import Bar
from steer.show._chart import Bars, Chart, Curves, scale

BAR = 12  # characters of a bar
_WIDE = 48  # characters of a cell
_FEWEST = 6  # values that make a picture
_MOST = 64  # characters of a row of levels
_SERIES = 4  # curves up to which all are shown, else none
_EIGHTHS = " ▏▎▍▌▋▊▉"
_LEVELS = "▁▂▃▄▅▆▇█"


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


def bar_text(bar: Bar) -> str:
    """Return a bar as block characters, or a point between the ends of its interval."""
    if not bar.drawn:
        return " " * BAR
    if bar.interval is not None:
        return _whisker(bar, *bar.interval)
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


def _whisker(bar: Bar, least: float, most: float) -> str:
    low, at, high = (round(bar.share(v) * (BAR - 1)) for v in (least, bar.value, most))
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
