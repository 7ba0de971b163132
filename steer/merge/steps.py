"""Most of a difference between neighbours, in whole numbers: steps of the last place.

Where base and aligned value have the same sign and exponent, they are n and n + k steps of one
grid, and the merged value is n + round(λ k) steps: integer arithmetic on the bits, exact for every
such element. Fine-tuning leaves most weights in that case.
"""

import functools
import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from steer.merge.expansion import BITS
from steer.merge.scratch import Scratch

_Bits = npt.NDArray[np.int16]
_Floats = npt.NDArray[np.float32]
_CHUNK = 2**17  # elements at a time
_DIGITS = {torch.bfloat16: 7, torch.float16: 10}  # stored bits of the significand
_SHORT = 2**8  # a coefficient that is a multiple of 1 / 256 is exact in all that follows


class Steps:
    """Merges `base + λ (aligned − base)` where both lie on one grid.

    Args:
        dtype: bfloat16 or float16.
        coefficient: λ, at most 2 in absolute value.
        factor: A float32 factor with round(factor · k) = round(λ k) for all k that occur; None if λ
            is short, when n + λ k is computed without rounding, so that ties see the parity of n.
        scratch: Memory.
    """

    def __init__(
        self, dtype: torch.dtype, coefficient: float, factor: float | None, scratch: Scratch
    ) -> None:
        self._coefficient, self._factor = coefficient, factor
        self._step = 2 ** _DIGITS[dtype]
        self._infinite = int(torch.tensor(math.inf, dtype=dtype).view(BITS[dtype]))
        self._dtype, self._scratch = dtype, scratch

    @classmethod
    def of(cls, dtype: torch.dtype, coefficient: float, scratch: Scratch) -> "Steps | None":
        """Return what merges with a coefficient, or None if the grid does not serve for it.

        Args:
            dtype: The dtype of base and aligned values.
            coefficient: λ.
            scratch: Memory.
        """
        if dtype not in _DIGITS or not abs(coefficient) <= 2:
            return None
        if (coefficient * _SHORT).is_integer():
            return cls(dtype, coefficient, None, scratch)
        factor = _factor(_DIGITS[dtype], coefficient)
        return None if factor is None else cls(dtype, coefficient, factor, scratch)

    def __call__(self, base: Tensor, aligned: Tensor) -> tuple[Tensor, Tensor]:
        """Return a merged block, and the indices of elements that are on no common grid.

        Args:
            base: A flat block of the base.
            aligned: The block of the aligned values, of the same dtype.
        """
        (out,), rest = self._scratch.rows("steps", 1, base.numel(), self._dtype), []
        b, a, r = (t.view(torch.int16).numpy() for t in (base, aligned, out))
        for start in range(0, len(b), _CHUNK):
            part = slice(start, start + _CHUNK)
            rest.append(np.flatnonzero(self._merge(b[part], a[part], r[part])) + start)
        return out, torch.from_numpy(np.concatenate(rest))

    def _merge(self, b: _Bits, a: _Bits, r: _Bits) -> npt.NDArray[np.bool_]:
        """Write merged bits to `r`, and return where they do not hold."""
        k, bits, x, apart = self._arrays(len(b))
        np.subtract(a, b, out=k)
        if self._factor is None:
            np.multiply(k, np.float32(self._coefficient), out=x)
            np.rint(np.add(x, b, out=x), out=x)
            np.copyto(r, np.clip(x, -(2**15), 2**15 - 1, out=x), casting="unsafe")
        else:
            np.rint(np.multiply(k, np.float32(self._factor), out=x), out=x)
            np.copyto(k, x, casting="unsafe")
            np.add(b, k, out=r)
        unsigned = bits.view(np.uint16)
        np.bitwise_xor(a, b, out=bits)
        np.greater_equal(unsigned, self._step, out=apart)
        if not 0 <= self._coefficient <= 1:  # else the result lies between base and aligned
            np.bitwise_xor(r, b, out=bits)
            apart |= unsigned >= self._step
            np.bitwise_xor(np.subtract(r, 1, out=k), b, out=bits)  # below a binade's least value
            apart |= unsigned >= self._step  # the grid is finer
        negative = self._infinite + 2**15
        if b.max(initial=0) >= self._infinite or b.view(np.uint16).max(initial=0) >= negative:
            apart[:] = True
        return apart

    def _arrays(self, size: int) -> tuple[_Bits, _Bits, _Floats, npt.NDArray[np.bool_]]:
        k, bits = self._scratch.rows("steps: integers", 2, size, torch.int16)
        (x,) = self._scratch.rows("steps: floats", 1, size, torch.float32)
        (apart,) = self._scratch.rows("steps: apart", 1, size, torch.bool)
        return k.numpy(), bits.numpy(), x.numpy(), apart.numpy()


@functools.lru_cache(maxsize=256)
def _factor(digits: int, coefficient: float) -> float | None:
    """Return a float32 number that multiplies every count of steps to the right side of a half.

    Near a tie, as 5 · 0.3 is, float32 cannot tell the side on which the float64 λ lies; a factor a
    little larger or smaller than λ can. It is checked for every count.
    """
    counts = range(1 - 2**digits, 2**digits)
    exact = [Fraction(coefficient) * k for k in counts]
    if any(2 * x % 2 == 1 for x in exact):
        return None
    wanted = torch.tensor([float(round(x)) for x in exact])
    k = torch.tensor([float(k) for k in counts])
    for nudge in (0.0, 2.0**-20, -(2.0**-20)):
        factor = float(torch.tensor(coefficient * (1 + nudge), dtype=torch.float32))
        if torch.equal((k * factor).round(), wanted):
            return factor
    return None
