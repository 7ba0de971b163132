"""Checks of arguments: each returns the value it accepts, as the plain kind that it stands for."""

import math
import operator
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from numbers import Real
from typing import Any, TypeVar

from steer.errors import ArgumentError, MissingExtraError

_T = TypeVar("_T")


def as_integer(value: object) -> int | None:
    """Return an integer of Python, NumPy or torch as an `int`; None for anything else.

    A truth value is no integer.
    """
    try:
        truth = isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")
        return None if truth else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def is_number(value: object) -> bool:
    """Return whether a value is a real number of Python or of a library, but no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def integer(
    name: str, value: object, *, least: int | None = None, most: int | None = None, do: str = ""
) -> int:
    """Return an integer between two bounds.

    Raises:
        ArgumentError: It is no integer, or beyond a bound.
    """
    found = as_integer(value)
    if found is not None and _within(found, least, most):
        return found
    raise _refused(name, value, "an integer", least, most, do)


def as_seed(value: object) -> int:
    """Return a seed that every generator takes.

    Raises:
        ArgumentError: It is no integer of 64 bits.
    """
    return integer("seed", value, least=-(2**63), most=2**63 - 1, do="pass for instance seed=0")


def number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    do: str = "",
) -> float:
    """Return a finite number between two bounds as a `float`.

    Raises:
        ArgumentError: It is no finite number, or beyond a bound.
    """
    if is_number(value):
        found = _as_float(value)
        beyond = (above is not None and found <= above) or (below is not None and found >= below)
        if math.isfinite(found) and _within(found, least, most) and not beyond:
            return found
    ends = [
        f"{word} {end:g}" for word, end in (("above", above), ("below", below)) if end is not None
    ]
    kind = " ".join(["a finite number", " and ".join(ends)]).strip()
    raise _refused(name, value, kind, least, most, do)


def one_of(name: str, value: object, options: Iterable[object], *, do: str = "") -> Any:
    """Return a value that is one of some options.

    Raises:
        ArgumentError: It is none of them.
    """
    known = list(options)
    if value not in known:
        raise ArgumentError(
            f"{name} is not one of the options",
            found=f"{name}={value!r}"[:120],
            expected=" | ".join(map(repr, known)),
            do=do or "check the spelling",
        )
    return value


def as_list(name: str, values: Iterable[_T], *, least: int = 0, do: str = "") -> list[_T]:
    """Return the values of a sequence, which is iterated once; a text is no sequence of letters.

    Raises:
        ArgumentError: It is one text, a mapping, or nothing that can be iterated, or too short.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ArgumentError(
            f"{name} must be a sequence",
            found=f"{type(values).__name__} {values!r}"[:120],
            expected="a list, or another iterable",
            do=do or "put a single one in a list: [value]",
        )
    found = list(values)
    if len(found) < least:
        raise ArgumentError(
            f"{name} is too short",
            found=f"{len(found)} values",
            expected=f"at least {least}",
            do=do or f"pass at least {least}",
        )
    return found


def as_layers(layers: Iterable[int]) -> tuple[int, ...]:
    """Return layers, block outputs counted from 0, as integers.

    Raises:
        ArgumentError: It is no sequence, or one is no integer.
    """
    given = as_list("layers", layers)
    found = [as_integer(layer) for layer in given]
    known = tuple(layer for layer in found if layer is not None)
    if len(known) < len(given):
        raise ArgumentError(
            "layers must be integers",
            found=", ".join(f"{type(layer).__name__}" for layer in given)[:120],
            expected="integers",
            do="count the blocks from 0; layer l is the output of block l",
        )
    return known


def need(what: str, *packages: str, extra: str = "") -> None:
    """Refuse an operation whose optional packages are not installed.

    Raises:
        MissingExtraError: One is missing.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        wanted = f"residual-steer[{extra}]" if extra else missing[0]
        raise MissingExtraError(
            f"{what} needs {' and '.join(missing)}",
            found="it is not installed",
            expected=f"the extra {extra!r}" if extra else f"the package {missing[0]}",
            do=f"pip install {wanted!r}" if extra else f"pip install {wanted}",
        )


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond every float
        return math.inf


def _within(value: float, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def _refused(
    name: str, value: object, kind: str, least: float | None, most: float | None, do: str
) -> ArgumentError:
    bounds = [f"at least {least}"] * (least is not None) + [f"at most {most}"] * (most is not None)
    return ArgumentError(
        f"{name} must be {kind}",
        found=f"{name}={value!r}"[:120],
        expected=", ".join([kind, *bounds]),
        do=do or f"pass {name} as {kind}",
    )
