"""Text as HTML, the one place where it is escaped."""

import re
from html import escape

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_LONG = 1000  # characters


def text(value: object) -> str:
    """Return a text as HTML: markup is escaped, and what HTML cannot hold is replaced.

    Args:
        value: A text, or what is turned into one.
    """
    whole = str(value)
    if len(whole) > _LONG:
        whole = f"{whole[: _LONG - 1]}…"
    return escape(_CONTROL.sub("\ufffd", whole), quote=True)
