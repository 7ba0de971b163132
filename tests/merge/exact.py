"""Slow exact references: fractions, and rounding by the definition of the format."""

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


def nearest(x: Fraction, dtype: torch.dtype) -> float:
    """The nearest number of a format, ties to even; infinite beyond the largest."""
    digits, least, top = FORMATS[dtype]
    if x == 0:
        return 0.0
    exponent = _floor_log2(abs(x))
    step = Fraction(2) ** max(exponent - digits + 1, least)
    count = round(x / step)  # of two equally near integers the even one
    value = count * step
    if abs(value) >= Fraction(2) ** (top + 1):
        return math.inf if value > 0 else -math.inf
    return float(value)


def _floor_log2(x: Fraction) -> int:
    guess = x.numerator.bit_length() - x.denominator.bit_length()
    return guess if Fraction(2) ** guess <= x else guess - 1


def merged(base: Tensor, deltas: Sequence[tuple[Tensor, float]]) -> Tensor:
    """Base plus coefficients times dense deltas, each element rounded once."""
    columns = [delta.reshape(-1).tolist() for delta, _ in deltas]
    values = []
    for i, x in enumerate(base.reshape(-1).tolist()):
        total = Fraction(x)
        for column, (_, coefficient) in zip(columns, deltas, strict=True):
            total += Fraction(coefficient) * Fraction(column[i])
        values.append(nearest(total, base.dtype))
    return torch.tensor(values, dtype=torch.float64).to(base.dtype).reshape(base.shape)
