"""Untrusted text, made safe for a page and for a terminal."""

import re
import unicodedata
from html import escape

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_LONG = 1000  # characters


def text(value: object) -> str:
    """Return a text of up to 1000 characters as HTML; a longer one is cut."""
    whole = str(value)
    return escaped(whole if len(whole) <= _LONG else f"{whole[: _LONG - 1]}…")


def escaped(value: object) -> str:
    """Return a text as HTML: markup is escaped, and characters HTML cannot hold are replaced."""
    return escape(_CONTROL.sub("\ufffd", str(value)), quote=True)


def terminal_text(text: str) -> str:
    """Return a text without control characters, which a terminal would obey."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")
