"""How values show themselves: a card, and its three forms as text, in a terminal and as HTML."""

from steer.show.card import Bar, Bars, Card, Curves, Table
from steer.show.html import card_html
from steer.show.text import card_text

__all__ = ["Bar", "Bars", "Card", "Curves", "Table", "card_html", "card_text"]
