"""Base plus coefficients times deltas: summed in float64, cast once to the dtype of the base."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Dense, LowRank, Term
from steer.errors import MergeError

_BLOCK = 2**16  # elements: half a MB in float64, which stays in the cache


@dataclass(frozen=True, eq=False, slots=True)
class Difference:
    """The difference `aligned − base` of two tensors, taken in float64 while it is merged."""

    aligned: Float[Tensor, "..."]
    base: Float[Tensor, "..."]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of both tensors."""
        return tuple(self.aligned.shape)


Delta = Term | Difference


def rounded(
    base: Float[Tensor, "..."], deltas: Sequence[tuple[Delta, float]], *, name: str = "a parameter"
) -> Float[Tensor, "..."]:
    """Return what `rounded_blocks` yields as one new tensor on the CPU, of the base's shape."""
    out = torch.empty(base.shape, dtype=base.dtype)
    fill(out, base, deltas, name)
    return out


def fill(
    out: Float[Tensor, "..."], base: Tensor, deltas: Sequence[tuple[Delta, float]], name: str
) -> None:
    """Write what `rounded_blocks` yields into a tensor, block by block if it is contiguous."""
    if not any(coefficient for _, coefficient in deltas):
        out.copy_(base)
    elif out.is_contiguous():
        blocks = rounded_blocks(base, deltas, name=name)
        for part, block in zip(out.view(-1).split(_BLOCK), blocks, strict=False):
            part.copy_(block)
    else:
        out.copy_(rounded(base, deltas, name=name))


def rounded_blocks(
    base: Float[Tensor, "..."], deltas: Sequence[tuple[Delta, float]], *, name: str = "a parameter"
) -> Iterator[Float[Tensor, " element"]]:
    r"""Yield base + Σ λ·Δ in flat blocks on the CPU.

    .. math:: W' = \operatorname{cast}(W + \sum_k \lambda_k \Delta_k)

    Every product and every sum is one float64 operation, in the order of the deltas. The cast is
    that of torch, which takes float64 to 16 bits by way of float32: a sum within 2⁻²⁵ of its size
    from the midpoint of two neighbours may become either. Without deltas, or with coefficients of 0
    only, the blocks have the bits of the base.

    Raises:
        MergeError: A shape differs, or a sum is not finite in the dtype of the base.
    """
    readers = [(c, _reader(delta, base, name)) for delta, c in deltas if c]
    flat = base.detach().cpu().reshape(-1)
    for start in range(0, len(flat), _BLOCK):
        block = flat[start : start + _BLOCK]
        if readers:
            total = block.to(torch.float64, copy=True)
            for coefficient, read in readers:
                total.add_(read(start, start + len(block)).mul_(coefficient))
            block = total.to(base.dtype)
            _check_finite(block, total, name)
        yield block


def _reader(
    delta: Delta, base: Tensor, name: str
) -> Callable[[int, int], Float[Tensor, " element"]]:
    """Return a function that gives a range of a delta's elements as a new float64 tensor."""
    if delta.shape != tuple(base.shape):
        raise MergeError(
            f"{name}: a delta has another shape",
            found=f"shape {delta.shape}",
            expected=f"shape {tuple(base.shape)}",
            do="check that the vector was made for this model",
        )
    match delta:
        case Dense(W):
            return _flat(W)
        case Difference(aligned, minus):
            minuend, subtrahend = _flat(aligned), _flat(minus)
            return lambda start, stop: minuend(start, stop).sub_(subtrahend(start, stop))
        case LowRank(B, A):
            return _rows(B.cpu().double(), A.cpu().double())
        case _:
            raise MergeError(
                "a direction cannot be merged into weights",
                found=f"{type(delta).__name__} of shape {delta.shape}",
                expected="a low-rank or dense term at a weight site",
                do="merge vector.weight, and steer with vector.residual",
            )


def _flat(tensor: Float[Tensor, "..."]) -> Callable[[int, int], Float[Tensor, " element"]]:
    flat = tensor.detach().cpu().reshape(-1)
    return lambda start, stop: flat[start:stop].to(torch.float64, copy=True)


def _rows(
    B: Float[Tensor, "out rank"], A: Float[Tensor, "rank in"]
) -> Callable[[int, int], Float[Tensor, " element"]]:
    width = A.shape[1]

    def read(start: int, stop: int) -> Float[Tensor, " element"]:
        first, last = start // width, -(-stop // width)
        product = torch.mm(B[first:last], A).reshape(-1)
        return product[start - first * width : stop - first * width]

    return read


def _check_finite(merged: Tensor, total: Tensor, name: str) -> None:
    low, high = (float(end) for end in torch.aminmax(merged))  # both NaN if any element is
    if not (-math.inf < low and high < math.inf):
        bad, info = total[~torch.isfinite(merged)].abs(), torch.finfo(merged.dtype)
        raise MergeError(
            f"{name}: a merged weight is not finite",
            found=f"{len(bad)} or more elements, one of size {float(bad[0]):.3g}",
            expected=f"at most {info.max:.3g}, the largest {str(merged.dtype)[6:]}",
            do="use smaller coefficients, and look for NaN or infinity in base and vector",
        )
