"""From whatever a task returns to JSON and to file names, without failing for one value."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from steer.show._text import readable

_DEEPEST = 100  # levels of lists and mappings
_BITS = 14_000  # of an integer; readers refuse more than 4,300 digits
_LONG = 100  # bytes of a file name, without the part that tells it from others


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


def json_bytes(value: Any, *, indent: int | None = None) -> bytes:
    """Return a value as one line of JSON in UTF-8; half of a surrogate pair is escaped."""
    text = json.dumps(plain(value), indent=indent, ensure_ascii=False)
    return f"{text}\n".encode("utf-8", "backslashreplace")


def file_names(tasks: Iterable[str]) -> dict[str, str]:
    """Return the file name of each task, no two alike, also where case does not count."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for task in tasks:
        known = task.encode("utf-8", "backslashreplace")
        name = re.sub(r"[^\w.-]", "_", task)
        if name.casefold() in taken or len(name.encode()) > _LONG:
            short = name.encode()[:_LONG].decode(errors="ignore")
            name = f"{short}-{hashlib.sha256(known).hexdigest()[:16]}"
        taken.add(name.casefold())
        found[task] = f"{name}.jsonl"
    return found
