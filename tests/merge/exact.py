"""Slow references: float64 sums of Python, rounded by the definition of the format."""

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

# dtype -> (bits of the significand, exponent of the least subnormal, largest exponent)
FORMATS = {
    torch.bfloat16: (8, -133, 127),
    torch.float16: (11, -24, 15),
    torch.float32: (24, -149, 127),
    torch.float64: (53, -1074, 1023),
}
Added = Tensor | tuple[Tensor, Tensor]  # a delta, or what it is the difference of


def nearest(x: Fraction, dtype: torch.dtype) -> float:
    """The nearest number of a format, ties to even; infinite beyond the largest."""
    unit = step(x, dtype)
    value = round(x / unit) * unit  # of two equally near integers the even one
    if abs(value) >= Fraction(2) ** (FORMATS[dtype][2] + 1):
        return math.inf if value > 0 else -math.inf
    return float(value)


def step(x: Fraction, dtype: torch.dtype) -> Fraction:
    """The distance between the numbers of a format around a number."""
    digits, least, _ = FORMATS[dtype]
    exponent = _floor_log2(abs(x)) if x else least
    return Fraction(2) ** max(exponent - digits + 1, least)


def _floor_log2(x: Fraction) -> int:
    guess = x.numerator.bit_length() - x.denominator.bit_length()
    return guess if Fraction(2) ** guess <= x else guess - 1


def cast(x: float, dtype: torch.dtype) -> float:
    """A float64 number in another format, as torch casts it: to 16 bits by way of float32."""
    if not math.isfinite(x):
        return x
    if dtype.itemsize == 2:
        x = nearest(Fraction(x), torch.float32)
    return nearest(Fraction(x), dtype) if math.isfinite(x) else x


def merged(base: Tensor, deltas: Sequence[tuple[Added, float]]) -> Tensor:
    """Base plus coefficients times deltas: each step in float64, then one cast."""
    columns = [(_column(delta), coefficient) for delta, coefficient in deltas]
    values = []
    for i, total in enumerate(base.reshape(-1).tolist()):
        for column, coefficient in columns:
            total += coefficient * column[i]
        values.append(cast(total, base.dtype))
    return torch.tensor(values, dtype=torch.float64).to(base.dtype).reshape(base.shape)


def _column(delta: Added) -> list[float]:
    if isinstance(delta, Tensor):
        return [float(x) for x in delta.reshape(-1).tolist()]
    pairs = zip(*(side.reshape(-1).tolist() for side in delta), strict=True)
    return [aligned - base for aligned, base in pairs]
