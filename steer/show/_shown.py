"""The base class of values that show themselves: one card, as text, in a terminal and as HTML."""

from abc import ABC, abstractmethod
from typing import Any

from steer.show._card import Card
from steer.show._html import card_html
from steer.show._text import card_text


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
        return card_text(self._card())

    def __rich__(self) -> Any:
        from steer.show._terminal import card_terminal

        return card_terminal(self._card())

    def _repr_html_(self) -> str:
        return card_html(self._card())
