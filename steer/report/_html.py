"""Pieces of HTML; every text that comes from outside goes through `text`."""

from collections.abc import Mapping, Sequence
from typing import Any

from steer.show._markup import escaped


def text(value: object) -> str:
    """Return a text as HTML: markup is escaped, characters that HTML cannot hold are replaced.

    Args:
        value: A text, or what is turned into one.
    """
    return escaped(value)


def number(value: object) -> str:
    """Return a value as a table shows it: four digits, and a dash where there is none.

    Args:
        value: The value.
    """
    if value is None or value != value:
        return "–"
    return f"{value:.4g}".replace("-", "−") if isinstance(value, float) else str(value)


def interval(value: float, ends: tuple[float, float]) -> str:
    """Return a number with its 95% interval.

    Args:
        value: The number.
        ends: Lower and upper end; NaN where there is none.
    """
    low, high = ends
    shown = f"{value:.3g}" if low != low else f"{value:.3g} [{low:.3g}, {high:.3g}]"
    return shown.replace("-", "−")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a table that scrolls where it is too wide.

    Args:
        rows: Rows of the same names.
    """
    if not rows:
        return "<p>Nothing was measured.</p>"
    head = "".join(f"<th scope='col'>{text(name)}</th>" for name in rows[0])
    body = "".join("<tr>" + "".join(map(_cell, row.values())) + "</tr>" for row in rows)
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class='wide'>{whole}</div>"


def _cell(value: object) -> str:
    if isinstance(value, float | int) or value is None:
        return f"<td class='number'>{text(number(value))}</td>"
    return f"<td dir='auto'>{text(value)}</td>"


def numbers(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a table that is folded up until it is wanted.

    Args:
        rows: Rows of the same names.
    """
    return f"<details><summary>Numbers</summary>{table(rows)}</details>"


def figure(picture: str, caption: str) -> str:
    """Return a picture with what it shows below it.

    Args:
        picture: SVG.
        caption: A text.
    """
    return f"<figure>{picture}<figcaption>{text(caption)}</figcaption></figure>"


def figures(pictures: Sequence[str]) -> str:
    """Return figures side by side as far as there is room.

    Args:
        pictures: What `figure` returned.
    """
    return f"<div class='figures'>{''.join(pictures)}</div>"


def paragraph(content: str) -> str:
    """Return a text as a paragraph.

    Args:
        content: The text.
    """
    return f"<p>{text(content)}</p>"
