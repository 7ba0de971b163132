"""Checked reading of JSON values: every function returns a value of one type or raises."""

from steer.errors import VectorFileError

_INF = float("inf")


def members(where: str, value: object, names: tuple[str, ...]) -> dict[str, object]:
    """Return a JSON object that has exactly the members named."""
    found = mapping(where, value)
    missing = [name for name in names if name not in found]
    unknown = sorted(set(found) - set(names))
    if missing or unknown:
        raise wrong(where, f"missing {missing}, unknown {unknown}", f"exactly {list(names)}")
    return found


def mapping(where: str, value: object) -> dict[str, object]:
    """Return a JSON object."""
    if not isinstance(value, dict):
        raise wrong(where, _kind(value), "an object")
    return value


def array(where: str, value: object) -> list[object]:
    """Return a JSON array."""
    if not isinstance(value, list):
        raise wrong(where, _kind(value), "an array")
    return value


def text(where: str, value: object, *, empty: bool = False) -> str:
    """Return a string, which may be empty only if so asked."""
    if not isinstance(value, str):
        raise wrong(where, _kind(value), "a string")
    if not value and not empty:
        raise wrong(where, "an empty string", "a string that is not empty")
    return value


def optional_text(where: str, value: object) -> str | None:
    """Return a string, or None."""
    return None if value is None else text(where, value)


def integer(where: str, value: object, *, low: int = 0, high: float = _INF) -> int:
    """Return an integer of the closed range from `low` to `high`; a Boolean is none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(where, _kind(value), "an integer")
    if not low <= value <= high:
        raise wrong(where, value, f"an integer from {low} to {high}")
    return value


def optional_integer(where: str, value: object, *, low: int = 0, high: float = _INF) -> int | None:
    """Return an integer of the closed range from `low` to `high`, or None."""
    return None if value is None else integer(where, value, low=low, high=high)


def number(where: str, value: object, *, low: float = -_INF, high: float = _INF) -> float:
    """Return a number of the closed range from `low` to `high`; a Boolean is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(where, _kind(value), "a number")
    if not low <= value <= high:
        raise wrong(where, value, f"a number from {low:g} to {high:g}")
    return float(value)


def optional_number(
    where: str, value: object, *, low: float = -_INF, high: float = _INF
) -> float | None:
    """Return a number of the closed range from `low` to `high`, or None."""
    return None if value is None else number(where, value, low=low, high=high)


def wrong(where: str, found: object, expected: str) -> VectorFileError:
    """Return the error for an unusable value of the document."""
    return VectorFileError(
        f"{where} in the header cannot be used",
        found=found,
        expected=expected,
        do="if you load: get the file again; if you save: correct this record",
    )


def _kind(value: object) -> str:
    return "null" if value is None else f"{type(value).__name__} {str(value)[:80]!r}"
