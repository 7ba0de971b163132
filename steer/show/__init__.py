"""How values show themselves: a card, and its three forms as text, in a terminal and as HTML."""

from steer.show._card import Bar, Bars, Card, Curves, Table
from steer.show._html import card_html
from steer.show._result import Result, Row
from steer.show._shown import Shown
from steer.show._text import card_text

__all__ = [
    "Bar",
    "Bars",
    "Card",
    "Curves",
    "Result",
    "Row",
    "Shown",
    "Table",
    "card_html",
    "card_text",
]
