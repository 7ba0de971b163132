"""Canonical JSON when written, and strict JSON when read: no duplicate keys, NaN or deep values."""

import json
import math
from collections import Counter
from typing import Any

from steer.errors import VectorFileError

_MAX_DEPTH = 32
_MAX_INTEGER = 2**63
_MAX_SEPARATORS = 2**21  # a vector of a low-rank term at each of 36,000 weights has 1.8 million


def dumps(value: object) -> str:
    """Return the canonical JSON text of a value: keys sorted, no spaces."""
    try:
        text = json.dumps(
            value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise _not_json(str(error)) from error
    if loads(text) != value:
        raise _not_json("an object with keys that are not strings")
    return text


def loads(text: str) -> object:
    """Return the value of a JSON text."""
    _check_size(text)
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        if isinstance(error, VectorFileError):
            raise
        raise _bad(str(error), "JSON") from error
    _check_values(value)
    if "\\u" in text or not text.isascii():
        _check_unicode(value)
    return value


def _check_size(text: str) -> None:
    """Refuse a text with more values than any of our files has, before it is parsed."""
    found = sum(text.count(separator) for separator in ",:[{")
    if found > _MAX_SEPARATORS:
        raise _bad(f"{found} of the characters , : [ {{", f"at most {_MAX_SEPARATORS}")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise _bad(f"the key {twice!r} twice in one object", "each key once")
    return result


def _no_constant(name: str) -> object:
    raise _bad(f"the number {name}", "finite numbers")


def _check_values(value: object) -> None:
    """Check every value level by level, which is faster than one call for each value."""
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH + 1):
        inner: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is list:
                inner += item
            elif kind is dict:
                inner += item.values()
            elif kind is float and not math.isfinite(item):
                raise _bad(f"the number {item}", "finite numbers")
            elif kind is int and not -_MAX_INTEGER < item < _MAX_INTEGER:
                found = f"an integer of {item.bit_length()} bits"
                raise _bad(found, "integers below 2^63 in size")
        if not inner:
            return
        level = inner
    raise _too_deep()


def _check_unicode(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        near = error.object[max(0, error.start - 20) : error.end + 20]
        raise _bad(f"half of a surrogate pair in {near!r}", "valid Unicode text") from error


def _too_deep() -> VectorFileError:
    return _bad("nested too deeply", f"at most {_MAX_DEPTH} levels")


def _bad(found: str, expected: str) -> VectorFileError:
    return VectorFileError(
        "the JSON in the header cannot be used",
        found=found,
        expected=expected,
        do="if you load: get the file again; if you save: correct the vector's records",
    )


def _not_json(found: str) -> VectorFileError:
    return VectorFileError(
        "the description of the vector cannot be written as JSON",
        found=found,
        expected="strings, finite numbers, Booleans, None, and lists and dicts of these",
        do="look at vector.provenance.arguments",
    )
