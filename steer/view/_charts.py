"""Charts made of tensors and estimates, on scales that a few numbers far out do not decide."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steer.measure import Estimate
from steer.show import Matrix, Row

LAYER = "layer (output of block)"
_REACH = 3.0  # interquartile ranges
_STRETCH = 3.0  # ranges of the others, on one side


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


def near(values: Float[Tensor, " pos"], centre: float = 0.0) -> Bool[Tensor, " pos"]:
    """Return which numbers are not far out.

    The first token of a text often has a stream a hundred times as long as the others' (an
    attention sink). Far out is what lies more than three interquartile ranges beyond the quartiles,
    which do not see it as long as fewer than a quarter of the numbers are so, and would besides
    stretch the range of the others, with the centre, more than threefold beyond its end.
    """
    finite = values.isfinite()
    if not bool(finite.any()):
        return finite
    low, high = torch.quantile(values[finite], values.new_tensor([0.25, 0.75]))
    if not float(high - low) > 0:
        return finite
    held = _between(values, low, high, _REACH) & finite
    low, high = values[held].min().clamp(max=centre), values[held].max().clamp(min=centre)
    return _between(values, low, high, _STRETCH) & finite


def _between(values: Tensor, low: Tensor, high: Tensor, reach: float) -> Tensor:
    room = reach * (high - low)
    return (values >= low - room) & (values <= high + room)
