"""Charts made of tensors and estimates."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from steer.measure import Estimate
from steer.show import Matrix, Row

LAYER = "layer (output of block)"


def zipped(places: Iterable[float], values: Tensor) -> tuple[tuple[float, float], ...]:
    """Return values as points."""
    return tuple((float(x), y) for x, y in zip(places, values.tolist(), strict=True))


def estimates(
    places: Iterable[float], found: Iterable[Estimate]
) -> tuple[tuple[float, float, float, float], ...]:
    """Return estimates as points with their intervals."""
    return tuple((float(x), e.value, *e.interval) for x, e in zip(places, found, strict=True))


def columns(name: str, found: Estimate) -> Row:
    """Return an estimate as three columns."""
    low, high = found.interval
    return {name: found.value, f"{name} low": low, f"{name} high": high}


def matrix(
    caption: str,
    values: Tensor | Sequence[Sequence[float]],
    rows: Iterable[str],
    columns: Iterable[str],
    limits: tuple[float, float],
    *,
    texts: Sequence[Sequence[str]] | None = None,
    **options: Any,
) -> Matrix:
    """Return a matrix of values."""
    cells = values.tolist() if isinstance(values, Tensor) else values
    written = None if texts is None else tuple(map(tuple, texts))
    numbers = tuple(map(tuple, cells))
    return Matrix(caption, tuple(rows), tuple(columns), numbers, limits, written, **options)


def around_zero(values: Tensor) -> tuple[float, float]:
    """Return limits of colours around 0 that hold every finite value."""
    finite = values[values.isfinite()]
    end = float(finite.abs().max()) if len(finite) else 0.0
    return (-end, end) if end > 0 else (-1.0, 1.0)
