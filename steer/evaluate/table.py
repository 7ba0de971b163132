"""How results print: the same rows as a text, as HTML and as a list of dictionaries."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from steer.shown import Shown

if TYPE_CHECKING:
    import pandas

    from steer.show.card import Card

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
        import pandas as pd

        return pd.DataFrame(self.rows)

    def _card(self) -> "Card":
        from steer.show.card import Card
        from steer.show.rows import table_of

        return Card(self.title, (), (table_of(self.rows),))


def estimate_row(measure: str, value: float, interval: tuple[float, float], n: int) -> Row:
    """Return the columns that every measured number has.

    Args:
        measure: What was measured, with unit and reduction where it has them.
        value: The number.
        interval: Its 95% interval; NaN where there is none.
        n: Items it was taken over.
    """
    return {"measure": measure, "value": value, "low": interval[0], "high": interval[1], "n": n}
