"""A matrix whose cells are coloured around 0 and have their numbers in them."""

import math
from collections.abc import Sequence

from steer.report._charts.svg import picture, short, write
from steer.report._html import text
from steer.view._look import diverging, hexadecimal, ink

_CELL, _TALL, _LEFT, _TOP = 92.0, 44.0, 150.0, 46.0
_NAME, _NARROW = 19, 12  # characters of a row's and of a column's name


def matrix(
    values: Sequence[Sequence[float]],
    texts: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    alternative: str,
) -> str:
    """Return a picture of a matrix, from vermilion below 0 to blue above.

    Args:
        values: The numbers, row by row; NaN is left empty.
        texts: What stands in the cells.
        rows: Names of the rows.
        columns: Names of the columns.
        alternative: What it shows, in words.
    """
    finite = [abs(v) for row in values for v in row if math.isfinite(v)]
    end = max(finite, default=0.0) or 1.0
    parts = []
    for j, name in enumerate(columns):
        middle = _LEFT + (j + 0.5) * _CELL
        parts.append(write(middle, _TOP - 10, short(name, _NARROW), anchor="middle"))
    for i, name in enumerate(rows):
        y = _TOP + i * _TALL
        parts.append(write(_LEFT - 8, y + _TALL / 2 + 4, short(name, _NAME), anchor="end"))
        for j, value in enumerate(values[i]):
            if math.isfinite(value):
                parts.append(_cell(_LEFT + j * _CELL, y, value / end, texts[i][j]))
    parts.append(write(_LEFT, 14, "affected →", size=11))
    parts.append(write(_LEFT - 8, _TOP - 10, "steered ↓", anchor="end", size=11))
    width, height = _LEFT + len(columns) * _CELL + 4, _TOP + len(rows) * _TALL + 6
    return picture(width, height, parts, alternative)


def _cell(x: float, y: float, share: float, content: str) -> str:
    colour = diverging(share)
    return (
        f"<rect x='{x + 1:.1f}' y='{y + 1:.1f}' width='{_CELL - 2:.1f}' height='{_TALL - 2:.1f}' "
        f"rx='3' fill='{hexadecimal(colour)}' stroke='currentColor' stroke-opacity='.25'/>"
        f"<text x='{x + _CELL / 2:.1f}' y='{y + _TALL / 2 + 4:.1f}' text-anchor='middle' "
        f"font-size='13' style='fill:{ink(colour)}'>{text(content)}</text>"
    )
