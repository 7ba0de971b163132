"""Values that show themselves: one card, as text, in a terminal and as HTML."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from steer.show._card import Card
from steer.show._html import card_html
from steer.show._rows import table_of

if TYPE_CHECKING:
    import pandas

Row = dict[str, Any]


class Shown(ABC):
    """A value that describes itself on a card, from which its three forms are made.

    `print(value)` gives text, `rich.print(value)` the same in colour and as wide as the terminal,
    and a notebook HTML with small charts. A card is made of what the value holds: nothing is
    fetched, and nothing that takes long is computed.
    """

    __slots__ = ()

    @abstractmethod
    def _card(self) -> Card:
        """Return the card."""

    def __repr__(self) -> str:
        from steer.show._terminal import card_text

        return card_text(self._card())

    def __rich__(self) -> Any:
        from steer.show._terminal import card_terminal

        return card_terminal(self._card())

    def _repr_html_(self) -> str:
        return card_html(self._card())


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
        """Return the rows as a pandas table; lone surrogates, which it cannot hold, are escaped."""
        import pandas as pd

        return pd.DataFrame([whole(row) for row in self.rows])

    def _card(self) -> Card:
        return Card(self.title, (), (table_of(self.rows),))


def whole(row: Row) -> Row:
    """Return a row whose texts are valid Unicode: a lone surrogate becomes its escape."""
    return {_whole(name): _whole(value) for name, value in row.items()}


def _whole(value: Any) -> Any:
    known = isinstance(value, str)
    return value.encode("utf-8", "backslashreplace").decode() if known else value
