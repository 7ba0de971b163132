"""Any value as JSON, without failing for one part of it."""

import json
import math
from collections.abc import Mapping
from typing import Any

from steer.show._text import readable

_DEEPEST = 100  # levels of lists and mappings
_BITS = 14_000  # of an integer; readers refuse more than 4,300 digits


def plain(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON knows it.

    NaN and infinity become None, an integer too large for JSON readers hexadecimal text, any other
    object its text, and what lies below 100 levels a note.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value) if value.bit_length() <= _BITS else hex(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth == _DEEPEST:
        return f"{type(value).__name__} nested too deeply"
    if isinstance(value, Mapping):
        return {readable(k): plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, depth + 1) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist(), depth + 1)  # numbers of numpy and torch
    return readable(value)


def json_line(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON with a line end."""
    return json.dumps(plain(value), indent=indent, ensure_ascii=False) + "\n"
