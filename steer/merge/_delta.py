"""What is added to a parameter, read piece by piece along its elements."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Dense, LowRank, Term
from steer.errors import MergeError

Piece = tuple[float, Tensor]
Pieces = list[tuple[float, tuple[Piece, ...]]]  # coefficient, signed flat tensors
Reader = Callable[[int, int], tuple[Piece, ...]]


@dataclass(frozen=True, eq=False, slots=True)
class Difference:
    """The difference `aligned − base` of two arrays, never formed, so that nothing is rounded.

    Args:
        aligned: Any shape, in weight units.
        base: The same shape.
    """

    aligned: Float[Tensor, "..."]
    base: Float[Tensor, "..."]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of both arrays."""
        return tuple(self.aligned.shape)


Delta = Term | Difference


def reader(delta: Delta) -> Reader:
    """Return a function from a range of elements to what stands there: signed flat tensors.

    The elements are counted in row-major order. Of a low-rank term the rows of that range are
    multiplied in float64.

    Args:
        delta: The term, or difference.

    Raises:
        MergeError: It is a direction, which belongs to the residual stream.
    """
    match delta:
        case Dense(W):
            return _flat((1.0, W))
        case Difference(aligned, base):
            return _flat((1.0, aligned), (-1.0, base))
        case LowRank(B, A):
            return _rows(B.cpu().double(), A.cpu().double())
        case _:
            raise MergeError(
                "a direction cannot be merged into weights",
                found=f"{type(delta).__name__} of shape {delta.shape}",
                expected="a low-rank or dense term at a weight site",
                do="merge vector.weight, and steer with vector.residual",
            )


def _flat(*signed: Piece) -> Reader:
    flat = [(sign, tensor.detach().cpu().reshape(-1)) for sign, tensor in signed]

    def read(start: int, stop: int) -> tuple[Piece, ...]:
        return tuple((sign, tensor[start:stop]) for sign, tensor in flat)

    return read


def _rows(B: Float[Tensor, "out rank"], A: Float[Tensor, "rank in"]) -> Reader:
    width = A.shape[1]

    def read(start: int, stop: int) -> tuple[Piece, ...]:
        first, last = start // width, -(-stop // width)
        product = torch.mm(B[first:last], A).reshape(-1)
        return ((1.0, product[start - first * width : stop - first * width]),)

    return read
