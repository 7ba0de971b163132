"""What a card holds: a title, facts, tables and pictures, as values that any form is made of."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

_SHOWN = 6  # rows at each end of a long table


@dataclass(frozen=True, slots=True)
class Bar:
    """A number drawn as a bar from zero, or as a point with its interval.

    Args:
        value: The number; one that is not finite is left blank.
        low: Least value on the scale, at most 0.
        high: Greatest value on the scale, at least 0.
        ends: Lower and upper end of the interval, for a point.
    """

    value: float
    low: float
    high: float
    ends: tuple[float, float] | None = None

    @property
    def drawn(self) -> bool:
        """Whether there is something to draw."""
        span = self.high - self.low
        return math.isfinite(self.value) and math.isfinite(span) and span > 0

    def share(self, value: float) -> float:
        """Return where a value lies on the scale, from 0 to 1.

        Args:
            value: The value; what lies beyond an end is put there.
        """
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)


Cell: TypeAlias = str | Bar
Cells: TypeAlias = tuple[Cell, ...]
Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells.

    Args:
        head: Names of the columns.
        rows: The rows shown.
        words: Columns from the left that hold words; the others hold numbers.
        rest: Rows that only HTML has, folded up.
        left_out: Rows that no form has.
        caption: What the rows are, if the columns do not say so.
    """

    head: tuple[str, ...]
    rows: tuple[Cells, ...]
    words: int = 1
    rest: tuple[Cells, ...] = ()
    left_out: int = 0
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Bars:
    """One upright bar for each of some numbers, in their order.

    Args:
        caption: What they are, with unit.
        labels: Name of each.
        values: The numbers; a gap stands for one that is not finite.
        marked: Index of the one that is pointed out.
    """

    caption: str
    labels: tuple[str, ...]
    values: tuple[float, ...]
    marked: int | None = None


@dataclass(frozen=True, slots=True)
class Curves:
    """Lines through points, on common axes.

    Args:
        caption: What is up, with unit.
        along: What is along, with unit.
        series: Points by name, each along and up, by rising place.
        marked: The place along that is pointed out.
    """

    caption: str
    along: str
    series: Mapping[str, tuple[Point, ...]]
    marked: float | None = None


Block: TypeAlias = Table | Bars | Curves


@dataclass(frozen=True, slots=True)
class Card:
    """A value's description.

    Args:
        title: One line that says what it is.
        facts: Names and what they are.
        blocks: Tables and pictures, the first on top.
        notes: Sentences below.
    """

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    blocks: tuple[Block, ...] = field(default=())
    notes: tuple[str, ...] = ()


def ends(count: int, keep: int | None = None) -> list[int | None]:
    """Return the rows shown of a long table; None stands for rows left out.

    Args:
        count: Rows that there are.
        keep: One that is shown wherever it stands.
    """
    first, last = range(min(_SHOWN, count)), range(max(count - _SHOWN, 0), count)
    wanted = sorted({*first, *last, *([] if keep is None else [keep])})
    if count - len(wanted) <= 1:
        return list(range(count))
    shown: list[int | None] = []
    for index in wanted:
        if index and shown[-1] != index - 1:
            shown.append(None)
        shown.append(index)
    return shown


def scale(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a scale from zero that holds every finite value.

    Args:
        values: The values.
    """
    finite = [value for value in values if math.isfinite(value)]
    return min([0.0, *finite]), max([0.0, *finite])


def number(value: object) -> str:
    """Return a value as a cell: four digits of a float, and a dash where there is none.

    Args:
        value: The value.
    """
    if value is None or value != value:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def ranges(layers: Sequence[int]) -> str:
    """Return layers in brief: `0–11`, or a list.

    Args:
        layers: The layers, ascending.
    """
    if len(layers) > 1 and list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}–{layers[-1]}"
    listed = [str(layer) for layer in layers]
    return ", ".join(listed if len(listed) <= 12 else [*listed[:6], "…", *listed[-5:]])
