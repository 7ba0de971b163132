"""Charts as values: bars, curves, matrices and coloured text.

Cards and report pages draw a chart as SVG (`_svg`), terminals as block characters (`_text`), and
`View.plot` draws it with matplotlib (`steer.view`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

Point: TypeAlias = tuple[float, float] | tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Bars:
    """One upright bar for each number.

    Args:
        caption: What the numbers are, with unit.
        labels: Name of each bar.
        values: The numbers; one that is not finite leaves a gap.
        marked: Index of the highlighted bar.
        along: What the labels are; empty where they speak for themselves.
        base: The value that bars start from.
        limits: Ends of the axis; bars beyond it are cut off and marked. By default all are shown.
        colours: Colour of each bar; by default one for all.
        split: Index of the bar that a second part starts with, and the name of that part.
        title: What the chart is called.
    """

    caption: str
    labels: tuple[str, ...]
    values: tuple[float, ...]
    marked: int | None = None
    along: str = ""
    base: float = 0.0
    limits: tuple[float, float] | None = None
    colours: tuple[str, ...] | None = None
    split: tuple[int, str] | None = None
    title: str = ""

    @property
    def shown(self) -> tuple[float, float]:
        """The ends of the axis: the limits, or all finite values and the base."""
        return self.limits or scale(self.values, self.base)

    @property
    def beyond(self) -> list[int]:
        """Indices of the bars that are cut off."""
        low, high = self.shown
        return [k for k, v in enumerate(self.values) if v < low or v > high]


@dataclass(frozen=True, slots=True)
class Series:
    """The points of one category.

    Args:
        points: Place and value, and the ends of the interval if it is known, by rising place. A
            place that is NaN interrupts the line.
        joined: Whether a line joins the points.
        hollow: Whether markers are outlines.
        hue: Number of the category's colour; by default its place among the series.
        faint: Whether the series is background.
    """

    points: tuple[Point, ...]
    joined: bool = True
    hollow: bool = False
    hue: int | None = None
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Curves:
    """Points and lines on common axes; a value that is not finite has a cross at the foot.

    Args:
        caption: What is up, with unit.
        along: What is along, with unit.
        series: Points by name; the name "" has no entry in the legend.
        marked: The highlighted place; points there are drawn hollow.
        marked_name: The name of the highlighted place.
        level: A highlighted value.
        limits: Ends of the vertical axis; None where the values decide.
        whole: Whether places are whole numbers, such as layers.
        root: Whether the horizontal axis has a square-root scale; places are then at least 0.
        title: What the chart is called.
    """

    caption: str
    along: str
    series: Mapping[str, tuple[Point, ...] | Series]
    marked: float | None = None
    marked_name: str = ""
    level: float | None = None
    limits: tuple[float | None, float | None] = (None, None)
    whole: bool = False
    root: bool = False
    title: str = ""

    @property
    def drawn(self) -> dict[str, Series]:
        """The series with their colours."""
        given = {n: s if isinstance(s, Series) else Series(s) for n, s in self.series.items()}
        return {
            name: one if one.hue is not None else replace(one, hue=k)
            for k, (name, one) in enumerate(given.items())
        }


@dataclass(frozen=True, slots=True)
class Matrix:
    """Coloured cells.

    Args:
        caption: What the values are, with unit.
        rows: Name of each row.
        columns: Name of each column.
        values: The numbers, row by row; one that is NaN leaves a blank cell.
        limits: Values at the ends of the colours; a lower end below 0 gives colours around 0.
        texts: Text of each cell; by default the number where the matrix is small.
        down: What the rows are.
        across: What the columns are.
        upwards: Whether the first row is at the bottom.
        title: What the chart is called.
    """

    caption: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    limits: tuple[float, float]
    texts: tuple[tuple[str, ...], ...] | None = None
    down: str = ""
    across: str = ""
    upwards: bool = False
    title: str = ""

    def share(self, value: float) -> float:
        """Return where a value lies in the colours, from 0 to 1 or from -1 to 1."""
        low, high = self.limits
        return value / high if low < 0 else (value - low) / (high - low)

    @property
    def written(self) -> tuple[tuple[str, ...], ...]:
        """The text of each cell; empty for a matrix that is too large for numbers."""
        if self.texts is not None:
            return self.texts
        if max(len(self.rows), len(self.columns)) > 12:
            return ()
        return tuple(tuple("" if v != v else f"{v:.2f}" for v in row) for row in self.values)


@dataclass(frozen=True, slots=True)
class Spans:
    """Pieces of a text, each on a colour; the plain text of a card leaves it out.

    Args:
        pieces: The pieces.
        values: The number behind each colour.
        colours: Red, green and blue of each, from 0 to 255.
        split: Index of the piece that a second part starts with.
    """

    pieces: tuple[str, ...]
    values: tuple[float, ...]
    colours: tuple[tuple[int, int, int], ...]
    split: int


Chart: TypeAlias = Bars | Curves | Matrix


def scale(values: Sequence[float], base: float = 0.0) -> tuple[float, float]:
    """Return the ends of a scale that holds the base and every finite value."""
    finite = [value for value in values if math.isfinite(value)]
    return min([base, *finite]), max([base, *finite])
