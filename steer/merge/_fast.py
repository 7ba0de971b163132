"""The fast pass: both ends of an interval that holds the exact sum, rounded."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from steer.merge._delta import Piece, Pieces
from steer.merge._expansion import BITS
from steer.merge._scratch import Scratch

_CHUNK = 2**19  # bytes of one scratch tensor: they stay in the cache, and calls cost little
_WIDER = {torch.bfloat16: torch.float32, torch.float16: torch.float32, torch.float32: torch.float64}


class Fast:
    """Computes sums in a wider dtype, with a bound of their error.

    With unit roundoff u of the wider dtype, K deltas and M = |base| + Σ |λ Δ|, the computed sum is
    off by at most (K + 3) u M: one u each for converting λ and Δ (or subtracting), the product, and
    K additions. The interval is wider by 3 u M for the rounding of M and of its own ends, and by a
    constant where products may underflow.

    Args:
        dtype: The dtype to round to.
        coefficients: Those of the deltas.
        scratch: Memory.
    """

    def __init__(self, dtype: torch.dtype, coefficients: Sequence[float], scratch: Scratch) -> None:
        self._dtype, self._scratch = dtype, scratch
        self._wide = _WIDER.get(dtype, torch.float64)
        self._chunk = _CHUNK // self._wide.itemsize
        info = torch.finfo(self._wide)
        self._bound = (len(coefficients) + 6) * info.eps / 2
        self._least, self._most = info.tiny * 64, torch.finfo(dtype).max / 2
        large = math.sqrt(info.max)
        moderate = all(1 / large < abs(c) < large for c in coefficients)
        self._trusted = moderate and dtype in _WIDER

    def ends(self, size: int) -> tuple[Tensor, Tensor]:
        """Return the memory for both ends of a block, which `run` fills.

        Args:
            size: Elements of the block.
        """
        low, high = self._scratch.rows("ends", 2, size, self._dtype)
        return low, high

    def run(self, base: Tensor, pieces: Pieces) -> Iterator[Tensor]:
        """Compute both ends of a block, rounded; yield the indices where they differ, in parts.

        Args:
            base: A flat block of the base.
            pieces: What is added to it.
        """
        low, high = self.ends(len(base))
        if not self._trusted or not all(self._converts(own) for _, own in pieces):
            low.fill_(-math.inf)
            high.fill_(math.inf)
            yield torch.arange(len(base))
            return
        bits = BITS[base.dtype]
        for start in range(0, len(base), self._chunk):
            part = slice(start, min(start + self._chunk, len(base)))
            self._interval(base, pieces, part, low[part], high[part])
            a, b = (end[part].view(bits).numpy() for end in (low, high))
            found = np.flatnonzero(np.not_equal(a, b))
            found += start
            yield torch.from_numpy(found)

    def _converts(self, own: tuple[Piece, ...]) -> bool:
        """Return whether the relative error of a delta in the wider dtype is at most u."""
        return len(own) == 1 or all(t.dtype.itemsize <= self._wide.itemsize for _, t in own)

    def _interval(
        self, base: Tensor, pieces: Pieces, part: slice, low: Tensor, high: Tensor
    ) -> None:
        """Write both ends; infinite ones throughout if some might be."""
        b, s, m, d, e = self._scratch.rows("fast", 5, low.numel(), self._wide)
        b.copy_(base[part])
        torch.abs(b, out=m)
        for number, (coefficient, own) in enumerate(pieces):
            d.copy_(own[0][1][part])
            for _, other in own[1:]:
                d.sub_(b if _same(other, base) else e.copy_(other[part]))
            torch.add(s if number else b, d, alpha=coefficient, out=s)
            m.add_(d.abs_(), alpha=abs(coefficient))
        sizes = m.numpy()
        if not sizes.max() < self._most:  # NaN too
            low.fill_(-math.inf)
            high.fill_(math.inf)
            return
        if sizes.min() < self._least:
            m.add_(self._least)
        low.copy_(torch.sub(s, m, alpha=self._bound, out=d))
        high.copy_(torch.add(s, m, alpha=self._bound, out=d))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.dtype == b.dtype
