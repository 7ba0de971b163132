"""Units of strength other than the coefficient, registered by name."""

from collections.abc import Callable
from typing import Any

from steer._registry import Registry
from steer.errors import CompositionError

Unit = Callable[[Any, Any, float], Any]  # a model, a composition and a value, to a composition

_UNITS: Registry[Unit] = Registry("a unit of strength", CompositionError, register="register_unit")


def register_unit(name: str, unit: Unit) -> None:
    """Register a unit of strength: `unit(model, composition, value)` returns the composition."""
    _UNITS.add(name, unit, unit)


def in_units(model: Any, composition: Any, given: bool, **values: float | None) -> Any:
    """Return a composition at the requested strength: its coefficients, or a value in one unit."""
    asked = {name: value for name, value in values.items() if value is not None}
    if given + len(asked) > 1:
        raise CompositionError(
            "the strength is given twice",
            found=f"coefficients: {given}, " + ", ".join(f"{n}={v!r}" for n, v in values.items()),
            expected=f"one of coefficients, {' and '.join(values)}",
            do="leave the others out",
        )
    for name, value in asked.items():
        return _UNITS.get(name)(model, composition, value)
    return composition
