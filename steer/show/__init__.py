"""Cards: how values show themselves as text, in a terminal and as HTML."""

from steer.show._card import Bar, Card, Table
from steer.show._chart import Bars, Chart, Curves, Matrix, Series, Spans
from steer.show._html import card_html
from steer.show._shown import Result, Row, Shown

__all__ = [
    "Bar",
    "Bars",
    "Card",
    "Chart",
    "Curves",
    "Matrix",
    "Result",
    "Row",
    "Series",
    "Shown",
    "Spans",
    "Table",
    "card_html",
]
