"""From whatever a task returns to JSON and to names of files, none of which fails for one value."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from steer.show._text import readable

_DEEPEST = 100  # levels of lists and mappings
_BITS = 14_000  # of an integer; readers refuse more than 4,300 digits
_LONG = 100  # bytes of a file's name, without what tells it from others


def plain(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON knows it.

    NaN and infinity become None, larger integers than JSON readers take hexadecimal text, and what
    is neither a number, a text, a list nor a mapping its text. Below 100 levels stands a note.

    Args:
        value: Any value.
        depth: Levels that it lies below the whole.
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
    """Return a value as one JSON text in UTF-8, with a line break at its end.

    Half of a surrogate pair, which UTF-8 cannot hold, is written as its JSON escape and read back.

    Args:
        value: Any value.
        indent: Spaces of one level; None writes a single line.
    """
    text = json.dumps(plain(value), indent=indent, ensure_ascii=False)
    return f"{text}\n".encode("utf-8", "backslashreplace")


def file_names(tasks: Iterable[str]) -> dict[str, str]:
    """Return for each task the name of a file, no two alike, also where case does not count.

    Args:
        tasks: Names of tasks.
    """
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
