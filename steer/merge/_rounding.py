"""Base plus coefficients times deltas, rounded once: to the nearest value, ties to even.

A fast pass computes each element in a wider dtype together with a bound of its error (`fast`).
Where both ends of that interval round to the same value, so does the exact number between them. The
elements left are settled in float64, and if need be exactly (`suspects`, `expansion`). Before all
that, float32 alone is enough for most elements of a difference between checkpoints (`near`).
"""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steer.errors import MergeError
from steer.merge._delta import Delta, Difference, Pieces, reader
from steer.merge._expansion import BITS
from steer.merge._fast import Fast
from steer.merge._near import Near
from steer.merge._scratch import Scratch
from steer.merge._suspects import Suspects

_BLOCK = 2**22  # elements that are rounded, corrected and handed out together


def rounded(
    base: Float[Tensor, "..."], deltas: Sequence[tuple[Delta, float]], *, name: str = "a parameter"
) -> Float[Tensor, "..."]:
    r"""Return base + Σ λ·Δ, every element the nearest value of the base's dtype, ties to even.

    .. math:: W' = \operatorname{round}(W + \sum_k \lambda_k \Delta_k)

    Exact means: of the stored numbers and of λ as the float64 that it is, with no rounding in
    between. Of a low-rank term, Δ is the product B A with every element rounded to float64, which
    is off by at most rank · 2⁻⁵³ · (|B| |A|). What falls below 2⁻¹⁰²², the least normal float64,
    is not resolved further. The sign of a zero is that of floating-point addition. Without deltas,
    or with coefficients of 0 only, the result has the bits of the base.

    Args:
        base: Any shape, in weight units; bfloat16, float16, float32 or float64.
        deltas: Terms or differences of the base's shape, each with its coefficient, dimensionless.
        name: What the tensor is called in messages.

    Returns:
        A new contiguous tensor of the base's shape, dtype and device.

    Raises:
        MergeError: The dtype cannot be rounded to, a shape differs, a coefficient or an element is
            not finite, or a sum exceeds the largest number of the dtype.
    """
    out = torch.empty(base.shape, dtype=base.dtype, device=base.device)
    flat = out.view(-1)
    for start, block in rounded_blocks(base, deltas, name=name):
        flat[start : start + len(block)] = block
    return out


def rounded_blocks(
    base: Float[Tensor, "..."],
    deltas: Sequence[tuple[Delta, float]],
    *,
    name: str = "a parameter",
    scratch: Scratch | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Yield what `rounded` returns in flat blocks on the CPU, each with its first element's index.

    Memory stays at some MB whatever the size of the base. A block is valid until the next one.

    Args:
        base: As for `rounded`.
        deltas: As for `rounded`.
        name: As for `rounded`.
        scratch: Memory of earlier calls, to be used again.

    Raises:
        MergeError: As for `rounded`.
    """
    _check(base, deltas, name)
    flat = base.detach().cpu().reshape(-1)
    added = [(delta, coefficient) for delta, coefficient in deltas if coefficient]
    merge = _Blocks(flat, added, name, scratch or Scratch()) if added else None
    for start in range(0, len(flat), _BLOCK):
        block = flat[start : start + _BLOCK]
        yield start, merge(start, block) if merge else block


class _Blocks:
    """Merges the blocks of one parameter.

    Args:
        flat: The base, flat.
        deltas: What is added, with coefficients other than 0.
        name: What the tensor is called in messages.
        scratch: Memory.
    """

    def __init__(
        self, flat: Tensor, deltas: Sequence[tuple[Delta, float]], name: str, scratch: Scratch
    ) -> None:
        coefficients = [c for _, c in deltas]
        self._parts = [(c, reader(delta)) for delta, c in deltas]
        self._fast = Fast(flat.dtype, coefficients, scratch)
        self._suspects = Suspects(flat.dtype, name, scratch)
        alike = len(deltas) == 1 and _is_difference_from(deltas[0][0], flat)
        self._near = Near.of(flat.dtype, coefficients[0], scratch) if alike else None

    def __call__(self, start: int, base: Tensor) -> Tensor:
        """Return a merged block, valid until the next.

        Args:
            start: Index of its first element.
            base: The block of the base.
        """
        pieces: Pieces = [(c, read(start, start + len(base))) for c, read in self._parts]
        if self._near is None:
            return self._merged(base, pieces)
        (coefficient, ((_, aligned), _)) = pieces[0]
        out, rest = self._near(base, aligned)
        if len(rest):
            b, a = base.index_select(0, rest), aligned.index_select(0, rest)
            out.index_copy_(0, rest, self._merged(b, [(coefficient, ((1.0, a), (-1.0, b)))]))
        return out

    def _merged(self, base: Tensor, pieces: Pieces) -> Tensor:
        low, high = self._fast.ends(len(base))
        self._suspects.settle(low, high, self._fast.run(base, pieces), base, pieces)
        return low


def _is_difference_from(delta: Delta, flat: Tensor) -> bool:
    """Return whether a delta is the difference of a tensor of one dtype from the base itself."""
    return (
        isinstance(delta, Difference)
        and delta.aligned.dtype == delta.base.dtype == flat.dtype
        and delta.base.is_contiguous()
        and delta.base.data_ptr() == flat.data_ptr()
    )


def _check(base: Tensor, deltas: Sequence[tuple[Delta, float]], name: str) -> None:
    if base.dtype not in BITS or base.is_meta:
        raise MergeError(
            f"{name} cannot be merged into",
            found="no data (meta device)" if base.is_meta else f"dtype {base.dtype}",
            expected="bfloat16, float16, float32 or float64, in memory",
            do="load the model unquantised and not offloaded, or steer without merging",
        )
    for delta, coefficient in deltas:
        if delta.shape != tuple(base.shape):
            raise MergeError(
                f"{name}: a delta of another shape",
                found=f"shape {delta.shape}",
                expected=f"shape {tuple(base.shape)}",
                do="check that the vector was made for this model",
            )
        if not math.isfinite(coefficient):
            raise MergeError(
                f"{name}: a coefficient is not finite",
                found=coefficient,
                expected="a finite number",
                do="check how the coefficient was computed",
            )
