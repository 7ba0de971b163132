"""JSON without its traps: canonical when written, and nothing ambiguous accepted when read."""

import json
import math
from collections import Counter

from steer.errors import VectorFileError

_MAX_DEPTH = 32
_MAX_INTEGER = 2**63


def dumps(value: object) -> str:
    """Return the canonical JSON text of a value: keys sorted, no spaces.

    Args:
        value: Plain dicts, lists, strings, finite numbers, Booleans and None.

    Returns:
        A text from which `loads` returns an equal value.

    Raises:
        VectorFileError: The value cannot be written as JSON and read back equal.
    """
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
    """Return the value of a JSON text.

    Args:
        text: The text.

    Returns:
        Dicts, lists, strings, finite numbers, Booleans and None.

    Raises:
        VectorFileError: The text is no JSON, names a key twice, nests too deeply, or holds NaN,
            infinity, an integer beyond 64 bits, or half of a surrogate pair.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError as error:
        raise _bad("nested too deeply", f"at most {_MAX_DEPTH} levels") from error
    except ValueError as error:
        raise _bad(str(error), "JSON") from error
    _check(value, 0)
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise _bad(f"the key {twice!r} twice in one object", "each key once")
    return result


def _no_constant(name: str) -> object:
    raise _bad(f"the number {name}", "finite numbers")


def _check(value: object, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise _bad("nested too deeply", f"at most {_MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key, item in value.items():
            _check(key, depth + 1)
            _check(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise _bad(f"the number {value}", "finite numbers")
    elif isinstance(value, int) and abs(value) >= _MAX_INTEGER:
        raise _bad(f"an integer of {value.bit_length()} bits", "integers below 2^63 in size")
    elif isinstance(value, str) and not _is_unicode(value):
        raise _bad(f"half of a surrogate pair in {value!r}", "valid Unicode text")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
