"""How results print: the same rows as a text, as HTML and as a list of dictionaries."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

Row = dict[str, Any]
_SHOWN = 40  # rows printed


class Tabled(ABC):
    """A result with rows: it prints them, and `pandas.DataFrame(result.rows)` is its table."""

    __slots__ = ()

    @property
    @abstractmethod
    def rows(self) -> list[Row]:
        """The result, one dictionary per row."""

    @property
    def title(self) -> str:
        """What stands above the rows."""
        return type(self).__name__

    def __repr__(self) -> str:
        return "\n".join([self.title, *("  " + line for line in table_text(self.rows))])

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.title)}</p>{table_html(self.rows)}"


def estimate_row(measure: str, value: float, interval: tuple[float, float], n: int) -> Row:
    """Return the columns that every measured number has.

    Args:
        measure: What was measured, with unit and reduction where it has them.
        value: The number.
        interval: Its 95% interval; NaN where there is none.
        n: Items it was taken over.
    """
    return {"measure": measure, "value": value, "low": interval[0], "high": interval[1], "n": n}


def table_text(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return rows as lines of aligned columns, the first line with their names.

    Args:
        rows: Rows of the same names.
    """
    if not rows:
        return []
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows[:_SHOWN])]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in cells]
    left = len(rows) - _SHOWN
    return lines + ([f"… {left} more rows"] if left > 0 else [])


def table_html(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as an HTML table.

    Args:
        rows: Rows of the same names.
    """
    if not rows:
        return "<table></table>"
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(v))}</td>" for v in row.values()) + "</tr>"
        for row in rows[:_SHOWN]
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: object) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
