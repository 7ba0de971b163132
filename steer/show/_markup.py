"""Text that others wrote, made safe for a page and for a terminal."""

import re
import unicodedata
from html import escape

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_LONG = 1000  # characters


def text(value: object) -> str:
    """Return a text as HTML: markup is escaped, and what HTML cannot hold is replaced.

    Args:
        value: A text, or what is turned into one.
    """
    whole = str(value)
    return escaped(whole if len(whole) <= _LONG else f"{whole[: _LONG - 1]}…")


def escaped(value: object) -> str:
    """Return a text as HTML as `text` does, whatever its length.

    Args:
        value: A text, or what is turned into one.
    """
    return escape(_CONTROL.sub("\ufffd", str(value)), quote=True)


def terminal_text(text: str) -> str:
    """Return a text without the control characters that would steer a terminal.

    Args:
        text: What a model or a user wrote.
    """
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")
