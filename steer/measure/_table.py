"""How results print: the same rows as a text, as HTML and as a list of dictionaries."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from steer.show import Shown

if TYPE_CHECKING:
    import pandas

    from steer.show import Card

Row = dict[str, Any]


class Tabled(Shown):
    """A result with rows: it prints them, and `to_pandas` makes a table of them."""

    __slots__ = ()

    @property
    @abstractmethod
    def rows(self) -> list[Row]:
        """The result, one dictionary per row."""

    @property
    def title(self) -> str:
        """What stands above the rows."""
        return type(self).__name__

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the rows as a pandas table."""
        return frame(self.rows)

    def _card(self) -> "Card":
        from steer.show import Card
        from steer.show._rows import table_of

        return Card(self.title, (), (table_of(self.rows),))


def frame(rows: Sequence[Row]) -> "pandas.DataFrame":
    """Return rows as a pandas table.

    Args:
        rows: The rows; half of a surrogate pair, which a table cannot hold, becomes its escape.
    """
    import pandas as pd

    return pd.DataFrame([whole(row) for row in rows])


def whole(row: Row) -> Row:
    """Return a row whose texts are valid Unicode: half of a surrogate pair becomes its escape.

    Args:
        row: The row.
    """
    return {_whole(name): _whole(value) for name, value in row.items()}


def _whole(value: Any) -> Any:
    known = isinstance(value, str)
    return value.encode("utf-8", "backslashreplace").decode() if known else value


def estimate_row(measure: str, value: float, interval: tuple[float, float], n: int) -> Row:
    """Return the columns that every measured number has.

    Args:
        measure: What was measured, with unit and reduction where it has them.
        value: The number.
        interval: Its 95% interval; NaN where there is none.
        n: Items it was taken over.
    """
    return {"measure": measure, "value": value, "low": interval[0], "high": interval[1], "n": n}
