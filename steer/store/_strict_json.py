"""Canonical JSON when written, and strict JSON when read: no duplicate keys, NaN or deep values."""

import json
import math
from collections import Counter
from typing import Any, NoReturn

from steer.errors import VectorFileError
from steer.store._refusals import wrong

_MAX_DEPTH = 32
_MAX_INTEGER = 2**63
_MAX_SEPARATORS = 2**21  # a vector of a low-rank term at each of 36,000 weights has 1.8 million


def dumps(value: object) -> str:
    """Return the canonical JSON text of a value: keys sorted, no spaces."""
    try:
        text = json.dumps(
            value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )
        if loads(text) != value:
            raise TypeError("an object with keys that are not strings")
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, VectorFileError):
            raise
        raise VectorFileError(
            "the description of the vector cannot be written as JSON",
            found=error,
            expected="strings, finite numbers, Booleans, None, and lists and dicts of these",
            do="look at vector.provenance.arguments",
        ) from error
    return text


def loads(text: str) -> object:
    """Return the value of a JSON text."""
    values = sum(text.count(separator) for separator in ",:[{")
    if values > _MAX_SEPARATORS:  # refused before it is parsed: none of our files has so many
        _refuse(f"{values} of the characters , : [ {{", f"at most {_MAX_SEPARATORS}")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        _too_deep()
    except ValueError as error:
        if isinstance(error, VectorFileError):
            raise
        _refuse(str(error), "JSON")
    _check_values(value)
    try:
        if "\\u" in text or not text.isascii():
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        near = error.object[max(0, error.start - 20) : error.end + 20]
        _refuse(f"half of a surrogate pair in {near!r}", "valid Unicode text")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        _refuse(f"the key {twice!r} twice in one object", "each key once")
    return result


def _no_constant(name: str) -> object:
    _refuse(f"the number {name}", "finite numbers")


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
                _refuse(f"the number {item}", "finite numbers")
            elif kind is int and not -_MAX_INTEGER < item < _MAX_INTEGER:
                found = f"an integer of {item.bit_length()} bits"
                _refuse(found, "integers below 2^63 in size")
        if not inner:
            return
        level = inner
    _too_deep()


def _too_deep() -> NoReturn:
    _refuse("nested too deeply", f"at most {_MAX_DEPTH} levels")


def _refuse(found: str, expected: str) -> NoReturn:
    raise wrong("the JSON", found, expected)
