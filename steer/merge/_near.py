"""A difference between checkpoints, where both values are near each other: float32 is enough.

Let base and aligned value be at most 127 numbers of their dtype apart. In steps of the finest grid
that occurs around them, both are whole, base + λ (aligned − base) is n + λ k with a small k, and
all values at which the rounding changes are at whole half steps. There are some hundred k. So one
can know beforehand that a float32 factor takes every λ k to the right side of every half step, with
room for the rounding of float32. Where λ itself does not, as 0.3, for which 5 λ is a tie to within
float32, one that is a little larger or smaller does.

Fine-tuning leaves nearly all weights that near. The others are left to the general way.
"""

import functools
import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from steer.merge._expansion import BITS
from steer.merge._scratch import Scratch

_Bits = npt.NDArray[np.int16]
_CHUNK = 2**17  # elements at a time
_APART = 127  # numbers of the dtype
_DIGITS = {torch.bfloat16: 7, torch.float16: 10}  # stored bits of the significand
_SHORT = 2**8  # a coefficient that is a multiple of 1 / 256 is exact in all that follows
_NUDGES = (0.0, *(sign * 2.0**-power for power in range(20, 7, -1) for sign in (1, -1)))


class Near:
    """Merges `base + λ (aligned − base)` where both are near each other.

    Args:
        dtype: bfloat16 or float16.
        coefficient: λ, at most 2 in absolute value.
        factor: What stands for λ in float32.
        scratch: Memory.
    """

    def __init__(
        self, dtype: torch.dtype, coefficient: float, factor: float, scratch: Scratch
    ) -> None:
        self._dtype, self._scratch = dtype, scratch
        self._between, self._factor = 0 <= coefficient <= 1, factor
        self._infinite = int(torch.tensor(math.inf, dtype=dtype).view(BITS[dtype]))

    @classmethod
    def of(cls, dtype: torch.dtype, coefficient: float, scratch: Scratch) -> "Near | None":
        """Return what merges with a coefficient, or None if no factor stands for it.

        Args:
            dtype: The dtype of base and aligned values.
            coefficient: λ.
            scratch: Memory.
        """
        if dtype not in _DIGITS or not abs(coefficient) <= 2:
            return None
        factor = _factor(_DIGITS[dtype], coefficient)
        return None if factor is None else cls(dtype, coefficient, factor, scratch)

    def __call__(self, base: Tensor, aligned: Tensor) -> tuple[Tensor, Tensor]:
        """Return a merged block, and the indices of elements that it does not hold for.

        Args:
            base: A flat block of the base.
            aligned: The block of the aligned values, of the same dtype.
        """
        (out,), rest = self._scratch.rows("near", 1, base.numel(), self._dtype), []
        for start in range(0, base.numel(), _CHUNK):
            part = slice(start, start + _CHUNK)
            b, a, r = base[part], aligned[part], out[part]
            x, y = self._scratch.rows("near: floats", 2, b.numel(), torch.float32)
            torch.add(x.copy_(b), y.copy_(a).sub_(x), alpha=self._factor, out=y)
            r.copy_(y)
            bits = (t.view(torch.int16).numpy() for t in (b, a, r))
            rest.append(np.flatnonzero(self._far(*bits)) + start)
        return out, torch.from_numpy(np.concatenate(rest))

    def _far(self, b: _Bits, a: _Bits, r: _Bits) -> npt.NDArray[np.bool_]:
        """Return where values are not near each other; everywhere if a result is not finite."""
        (steps,) = self._scratch.rows("near: steps", 1, len(b), torch.int16)
        found = _differ(a, b, steps.numpy())
        if not self._between:
            found |= _differ(r, b, steps.numpy())
        least = self._infinite + 2**15  # of the negative ones, as unsigned integers
        if r.max() >= self._infinite or r.view(np.uint16).max() >= least:
            found[:] = True
        return found


def _differ(a: _Bits, b: _Bits, steps: _Bits) -> npt.NDArray[np.bool_]:
    """Return where two numbers are more than `_APART` numbers apart, or differ in sign."""
    np.subtract(a, b, out=steps)
    np.add(steps, _APART, out=steps)
    far: npt.NDArray[np.bool_] = steps.view(np.uint16) > 2 * _APART
    return far


@functools.lru_cache(maxsize=256)
def _factor(digits: int, coefficient: float) -> float | None:
    """Return the float32 factor that stands for λ; None if there is none.

    With λ in [0, 1] the result lies between both values, on one of two neighbouring grids; else it
    may lie on a third. A short λ makes no rounding, so that ties see the even neighbour.
    """
    if (coefficient * _SHORT).is_integer():
        return coefficient
    reach = _APART * (2 if 0 <= coefficient <= 1 else 4)
    half_steps = [2 * abs(Fraction(coefficient)) * k for k in range(1, reach + 1)]
    if any(y.denominator == 1 for y in half_steps):
        return None
    wanted = np.array([float(math.floor(y)) for y in half_steps])
    at_base = np.array([y < Fraction(1, 2) for y in half_steps])  # a number, no border
    room = 2.0 ** (digits - 18)  # more than float32 is off by, in half steps
    for nudge in _NUDGES:
        factor = float(np.float32(coefficient * (1 + nudge)))
        y = 2 * abs(factor) * np.arange(1, reach + 1)
        clear = (y - wanted >= room) & (wanted + 1 - y >= room)
        if bool((clear | (at_base & (y < 0.5))).all()):
            return factor
    return None
