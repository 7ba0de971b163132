"""Terms, the values at single sites: a direction, a low-rank matrix or a dense array.

Terms are frozen, and functions on them return new ones. A direction copies its tensor. Weight
terms are large and keep the tensor itself: do not write to it afterwards. The rules of addition:

===========  =============  ==========================================
left         right          sum
===========  =============  ==========================================
Direction    Direction      Direction
LowRank      LowRank        LowRank of the summed rank, factors joined
LowRank      Dense          Dense
Dense        Dense          Dense
===========  =============  ==========================================
"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import integer
from steer.errors import AlgebraError

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _check_float(name: str, value: object, ndim: int | None) -> None:
    """Refuse what is no floating-point tensor of so many dimensions."""
    found = type(value).__name__
    if isinstance(value, Tensor):
        if value.dtype in _DTYPES and ndim in (None, value.ndim):
            return
        found = f"{value.dtype}, shape {tuple(value.shape)}"
    size = "" if ndim is None else f" of {ndim} dimension(s)"
    raise AlgebraError(
        f"{name} is not a floating-point tensor{size}",
        found=found,
        expected=f"a torch tensor of float16, bfloat16, float32 or float64{size}",
        do="convert it with torch.as_tensor(x, dtype=torch.float32), or reshape it",
    )


@dataclass(frozen=True, eq=False, slots=True)
class Direction:
    """An element of R^d at a residual site.

    Args:
        v: `[d_model]`, in residual units; a copy is kept.
    """

    v: Float[Tensor, " d_model"]

    def __post_init__(self) -> None:
        _check_float("a direction", self.v, 1)
        if not self.v.is_meta and not bool(torch.isfinite(self.v).all()):
            raise AlgebraError(
                "a direction is not finite",
                found=f"{int((~torch.isfinite(self.v)).sum())} of {len(self.v)} values are NaN or "
                "infinite",
                expected="finite numbers",
                do="look where they come from: an overflow in float16, a division by zero",
            )
        with torch.inference_mode(False):  # it outlives the call in which it is made
            object.__setattr__(self, "v", self.v.clone())

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the element: `(d_model,)`."""
        return tuple(self.v.shape)


@dataclass(frozen=True, eq=False, slots=True)
class LowRank:
    """The matrix `B @ A`, kept as its factors.

    Args:
        B: `[out, rank]`, in weight units; not copied, so do not write to it afterwards.
        A: `[rank, in]`, dimensionless; likewise.
    """

    B: Float[Tensor, "out rank"]
    A: Float[Tensor, "rank in"]

    def __post_init__(self) -> None:
        _check_float("factor B", self.B, 2)
        _check_float("factor A", self.A, 2)
        if self.B.shape[1] != self.A.shape[0] or self.B.dtype != self.A.dtype:
            raise AlgebraError(
                "the factors of a low-rank term do not chain",
                found=f"B {tuple(self.B.shape)} {self.B.dtype} and "
                f"A {tuple(self.A.shape)} {self.A.dtype}",
                expected="B [out, rank] and A [rank, in] with one rank and one dtype",
                do="transpose the factor that is the wrong way round, or convert one",
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the product: `(out, in)`."""
        return (self.B.shape[0], self.A.shape[1])

    @property
    def rank(self) -> int:
        """The number of columns of `B`, an upper bound of the product's rank."""
        return self.B.shape[1]


@dataclass(frozen=True, eq=False, slots=True)
class Dense:
    """An array of a parameter's own shape.

    Args:
        W: Any shape, in weight units; not copied, so do not write to it afterwards.
    """

    W: Float[Tensor, "..."]

    def __post_init__(self) -> None:
        _check_float("a dense term", self.W, None)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        return tuple(self.W.shape)


Term = Direction | LowRank | Dense


def tensors(term: Term) -> dict[str, Tensor]:
    """Return the term's tensors by their field names, in the order of the fields."""
    return {field.name: getattr(term, field.name) for field in fields(term)}


def dense(term: Term) -> Tensor:
    """Return the element as one tensor of `term.shape`."""
    match term:
        case Direction(v):
            return v
        case LowRank(B, A):
            return B @ A
        case Dense(W):
            return W


def scale(term: Term, factor: float) -> Term:
    """Return `factor * term`; a low-rank term carries the factor on `B` alone."""
    if isinstance(term, LowRank):
        return LowRank(factor * term.B, term.A)
    return type(term)(factor * dense(term))


def add(left: Term, right: Term) -> Term:
    """Return `left + right`; low-rank sums join the factors, which is exact."""
    if left.shape != right.shape or isinstance(left, Direction) != isinstance(right, Direction):
        raise AlgebraError(
            "terms of different spaces cannot be added",
            found=f"{type(left).__name__}{left.shape} + {type(right).__name__}{right.shape}",
            expected="two directions, or two weight terms, of one shape",
            do="check that both vectors were made for the same model",
        )
    if isinstance(left, LowRank) and isinstance(right, LowRank):
        return LowRank(torch.cat([left.B, right.B], dim=1), torch.cat([left.A, right.A], dim=0))
    total = dense(left) + dense(right)
    return Direction(total) if isinstance(left, Direction) else Dense(total)


def inner(left: Term, right: Term) -> float:
    """Return the Frobenius inner product in float64, without forming `B @ A`.

    Raises:
        AlgebraError: The shapes differ.
    """
    if left.shape != right.shape:
        raise AlgebraError(
            "terms of different shapes have no inner product",
            found=f"{left.shape} and {right.shape}",
            expected="one shape",
            do="check that both vectors were made for the same model",
        )
    match left, right:
        case LowRank(B1, A1), LowRank(B2, A2):
            product = (B1.double().T @ B2.double()) * (A1.double() @ A2.double().T)
            return float(product.sum())
        case LowRank(B, A), _:
            return float(((B.double().T @ dense(right).double()) * A.double()).sum())
        case _, LowRank():
            return inner(right, left)
        case _:
            return float(torch.dot(dense(left).double().flatten(), dense(right).double().flatten()))


def svd_of_product(term: LowRank) -> tuple[Tensor, Tensor, Tensor]:
    """Return the float64 singular value decomposition of B A, without forming the product."""
    QB, RB = torch.linalg.qr(term.B.double())
    QA, RA = torch.linalg.qr(term.A.double().T)
    U, S, Vh = torch.linalg.svd(RB @ RA.T, full_matrices=False)
    return QB @ U, S, Vh @ QA.T


def truncate(term: Term, rank: int) -> Term:
    """Return the best approximation of rank `rank` in the Frobenius norm (Eckart-Young).

    A low-rank term is reduced through its factors, without forming the product. Terms that are
    no matrices (directions, biases) are returned as they are.
    """
    rank = integer("rank", rank, least=1)
    if len(term.shape) != 2:
        return term
    if isinstance(term, LowRank):
        (U, S, Vh), dtype = svd_of_product(term), term.B.dtype
    else:
        W = dense(term)
        (U, S, Vh), dtype = torch.linalg.svd(W.double(), full_matrices=False), W.dtype
    root = S[:rank].sqrt()
    return LowRank((U[:, :rank] * root).to(dtype), (root[:, None] * Vh[:rank]).to(dtype))
