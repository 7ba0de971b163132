"""The base class of results with rows: how they print, and how they become a pandas table."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from steer.show._card import Card
from steer.show._rows import table_of
from steer.show._shown import Shown

if TYPE_CHECKING:
    import pandas

Row = dict[str, Any]


class Result(Shown):
    """A result with rows: `print` shows them, and `to_pandas` returns them as a pandas table."""

    __slots__ = ()

    @property
    @abstractmethod
    def rows(self) -> list[Row]:
        """The numbers, one dictionary per row."""

    @property
    def title(self) -> str:
        """The line above the rows."""
        return type(self).__name__

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the rows as a pandas table."""
        return frame(self.rows)

    def _card(self) -> Card:
        return Card(self.title, (), (table_of(self.rows),))


def frame(rows: Sequence[Row]) -> "pandas.DataFrame":
    """Return rows as a pandas table; lone surrogates, which it cannot hold, become escapes."""
    import pandas as pd

    return pd.DataFrame([whole(row) for row in rows])


def whole(row: Row) -> Row:
    """Return a row whose texts are valid Unicode: a lone surrogate becomes its escape."""
    return {_whole(name): _whole(value) for name, value in row.items()}


def _whole(value: Any) -> Any:
    known = isinstance(value, str)
    return value.encode("utf-8", "backslashreplace").decode() if known else value
