"""What a card holds: a title, facts, tables and charts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from steer.show._chart import Chart, Spans

_SHOWN = 6  # rows at each end of a long table


@dataclass(frozen=True, slots=True)
class Bar:
    """A number drawn as a bar from zero, or as a point with its interval.

    Args:
        value: The number; one that is not finite is left blank.
        low: Least value on the scale, at most 0.
        high: Greatest value on the scale, at least 0.
        ends: Lower and upper end of the interval, for a point; left out if one is not finite.
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

    @property
    def interval(self) -> tuple[float, float] | None:
        """The ends of the interval, if they are known and finite."""
        return self.ends if self.ends is not None and all(map(math.isfinite, self.ends)) else None

    def share(self, value: float) -> float:
        """Return the place of a value on the scale, clipped to 0 and 1."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)


Cell: TypeAlias = str | Bar
Cells: TypeAlias = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells.

    Args:
        head: Names of the columns.
        rows: The rows shown.
        words: Columns from the left that hold words; the others hold numbers.
        rest: Rows that only HTML has, folded up.
        left_out: Number of rows that no form has.
        caption: What the rows are, if the columns do not say so.
        folded: Whether HTML folds up all rows.
        texts: Whether the cells are texts: plain text wraps each on lines of its own.
    """

    head: tuple[str, ...]
    rows: tuple[Cells, ...]
    words: int = 1
    rest: tuple[Cells, ...] = ()
    left_out: int = 0
    caption: str = ""
    folded: bool = False
    texts: bool = False


Block: TypeAlias = Table | Chart | Spans


@dataclass(frozen=True, slots=True)
class Card:
    """The description of a value.

    Args:
        title: One line that says what it is.
        facts: Names and what they are.
        blocks: Tables and charts, from top to bottom; HTML has the charts above the tables.
        notes: Sentences below.
    """

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    blocks: tuple[Block, ...] = ()
    notes: tuple[str, ...] = ()


def cut_table(
    head: tuple[str, ...], rows: Sequence[Cells], *, keep: int | None = None, folded: int = 200
) -> Table:
    """Return a table with the rows at both ends and row `keep`; HTML folds up the others."""
    first, last = range(min(_SHOWN, len(rows))), range(max(len(rows) - _SHOWN, 0), len(rows))
    wanted = sorted({*first, *last, *([] if keep is None else [keep])})
    if len(rows) - len(wanted) <= 1:
        return Table(head, tuple(rows))
    gap: Cells = ("…", *[""] * (len(head) - 1))
    shown: list[Cells] = []
    for before, index in zip([-1, *wanted], wanted, strict=False):
        shown += [gap] * (index > before + 1) + [rows[index]]
    rest = [row for k, row in enumerate(rows) if k not in wanted]
    return Table(head, tuple(shown), 1, tuple(rest[:folded]), max(len(rest) - folded, 0))


def number(value: object) -> str:
    """Return a value as a cell: a float with four digits, and a dash for None and NaN."""
    if value is None or value != value:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def ranges(layers: Sequence[int]) -> str:
    """Return ascending layers in brief: `0–11`, or a list."""
    if len(layers) > 1 and list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}–{layers[-1]}"
    listed = [str(layer) for layer in layers]
    return ", ".join(listed if len(listed) <= 12 else [*listed[:6], "…", *listed[-5:]])
