"""Exact sums: unevaluated sums of float64 tensors, and their nearest value in another dtype.

An expansion is a list of float64 tensors, from small to large, whose elementwise sum is the exact
number; in each element no two components overlap (Shewchuk, 1997). Nothing here rounds until
`nearest`, as long as no value exceeds the range of float64.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

Expansion = list[Tensor]
BITS = {
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}
_HALF = 27  # bits: factors of 26 and 27 bits have a product of at most 53


def split(factor: float) -> tuple[float, ...]:
    """Return the parts of a number, of at most 26 bits each, that sum to it; zeros are left out.

    Args:
        factor: A finite number.
    """
    mantissa, exponent = math.frexp(factor)
    high = math.ldexp(float(round(math.ldexp(mantissa, _HALF - 1))), exponent - _HALF + 1)
    return tuple(part for part in (high, factor - high) if part)


def split_tensor(x: Float[Tensor, "..."]) -> Expansion:
    """Return tensors with at most 26 significant bits, from small to large, that sum to a tensor.

    Args:
        x: Any floating dtype; what is narrower than float64 is one part by itself.
    """
    if x.dtype != torch.float64:
        return [x]
    scaled = x * float(2**_HALF + 1)
    high = scaled - (scaled - x)
    return [x - high, high]


def two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return `fl(a + b)` and the error that this rounding makes (Knuth)."""
    total = a + b
    tail = total - a
    return total, (a - (total - tail)).add_(b - tail)


def grow(expansion: Expansion, x: Tensor) -> Expansion:
    """Return an expansion plus one tensor, exactly."""
    grown = []
    for component in expansion:
        x, error = two_sum(x, component)
        grown.append(error)
    return [*grown, x]


def sign(expansion: Expansion) -> Tensor:
    """Return the sign of the exact sum, −1, 0 or 1: that of the largest component not zero."""
    found = torch.sign(expansion[0])
    for component in expansion[1:]:
        found = torch.where(component != 0, torch.sign(component), found)
    return found


def nearest(expansion: Expansion, dtype: torch.dtype) -> Tensor:
    """Return the value of a dtype nearest to the exact sum; of two equally near, the even one.

    Args:
        expansion: Finite; sums beyond the largest number of the dtype give that number.
        dtype: bfloat16, float16, float32 or float64.

    Returns:
        The rounded sums.
    """
    total = expansion[0]
    for component in expansion[1:]:
        total = total + component
    limit = torch.finfo(dtype).max
    here = total.clamp(-limit, limit).to(dtype)
    rest = grow(expansion, -here.double())
    side = sign(rest)
    there = _neighbour(here, side)
    gap = torch.where(side == 0, 0.0, there.double() - here.double())
    beyond = sign(grow([2 * component for component in rest], -gap)) * side
    odd = (here.view(BITS[dtype]) & 1) == 1
    return torch.where((beyond > 0) | ((beyond == 0) & odd & (side != 0)), there, here)


def _neighbour(x: Tensor, side: Tensor) -> Tensor:
    """Return the next value of the dtype on one side (−1 or 1)."""
    integer = BITS[x.dtype]
    bits = x.view(integer)
    away = (bits >= 0) == (side > 0)
    least = torch.where(side > 0, 1, torch.iinfo(integer).min + 1).to(integer)
    return torch.where(x == 0, least, torch.where(away, bits + 1, bits - 1)).view(x.dtype)
