"""Low-rank form: the best factors of each matrix, without a full singular value decomposition."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import integer, number
from steer.algebra import LowRank, Term, Vector, Weight, inner, tensors
from steer.algebra._term import add, dense, scale, svd_of_product
from steer.alignment._forms import derived
from steer.alignment._table import TensorRow, TensorTable
from steer.errors import ArgumentError

_BLOCK = 2**17  # elements converted to float64 at a time: small, so that memory is used again


@dataclass(frozen=True, slots=True)
class Target:
    """How far to reduce: to a fixed rank, or to the least rank that keeps a share of ‖W‖²."""

    rank: int | None = None
    energy: float | None = None

    def __post_init__(self) -> None:
        if (self.rank is None) == (self.energy is None):
            raise ArgumentError(
                "pass a rank or an energy",
                found=f"rank={self.rank!r}, energy={self.energy!r}",
                expected="exactly one of them",
                do="pass for instance rank=16, or energy=0.9",
            )
        if self.rank is not None:
            integer("rank", self.rank, least=1)
        else:
            number("energy", self.energy, above=0, most=1)

    def __str__(self) -> str:
        return f"rank={self.rank}" if self.energy is None else f"energy={self.energy:g}"


def low_rank(
    vector: Vector,
    *,
    rank: int | None = None,
    energy: float | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Vector, TensorTable]:
    """Return a weight vector with every matrix as the product of two factors.

    The factors are those of the truncated singular value decomposition, optimal in the Frobenius
    norm (Eckart-Young); the singular values are split between both. Biases, norms and blocks of
    experts (3-D) stay dense, and residual sites stay as they are; the table lists every tensor.

    Args:
        vector: The vector.
        rank: The rank of each matrix; a matrix of lower rank keeps its own.
        energy: Instead of a rank, the share of ‖W‖² that each matrix must keep, in (0, 1].
        dtype: Precision of the factors; None for that of the term.

    Returns:
        The vector, and for each tensor the energy kept and ‖W − BA‖ / ‖W‖ of the factors returned.

    Raises:
        ArgumentError: Not exactly one of rank and energy is given, or it is out of range.
    """
    target = Target(rank, energy)
    terms, rows = dict(vector.terms), []
    for site, term in vector.terms.items():
        if isinstance(site, Weight):
            terms[site], row = reduced(site.name, term, target, dtype)
            rows.append(row)
    return derived(vector, terms, f"low_rank({target})"), TensorTable(tuple(rows))


def reduced(
    name: str, term: Term, target: Target | None, dtype: torch.dtype | None
) -> tuple[Term, TensorRow]:
    """Return a term reduced to its target, if there is one, and the row of the table about it."""
    squares = inner(term, term) if isinstance(term, LowRank) else _squares(dense(term))
    if target is None or len(term.shape) != 2 or squares == 0.0:
        rank = term.rank if isinstance(term, LowRank) else None
        return _cast(term, dtype), TensorRow(name, term.shape, rank, squares**0.5, 1.0, 0.0)
    if isinstance(term, LowRank):
        factors, spectrum = _of_factors(term, target, dtype or term.B.dtype)
        rest = add(term, scale(factors, -1.0))
        lost = max(inner(rest, rest), 0.0)
    else:
        W = dense(term)
        factors, spectrum = _of_matrix(W, target, dtype or W.dtype)
        lost = sum(_squares(W[a:b].double() - _product(factors, a, b)) for a, b in _blocks(W))
    kept = float(spectrum[: factors.rank].sum() / spectrum.sum())
    error = (lost / squares) ** 0.5
    return factors, TensorRow(name, term.shape, factors.rank, squares**0.5, kept, error)


def _cast(term: Term, dtype: torch.dtype | None) -> Term:
    parts = {name: part.to(dtype or part.dtype) for name, part in tensors(term).items()}
    return type(term)(**parts)


def _of_matrix(W: Tensor, target: Target, dtype: torch.dtype) -> tuple[LowRank, Tensor]:
    """Return the factors of a matrix and its squared singular values in falling order.

    They are the eigenvalues of the smaller of WᵀW and WWᵀ, summed in float64 block by block, so
    that memory stays near that of W itself. Squaring loses singular values below 1e-8 of the
    largest, which float32 factors could not hold either.
    """
    if W.shape[0] < W.shape[1]:
        factors, spectrum = _of_matrix(W.T, target, dtype)
        return LowRank(factors.A.T.contiguous(), factors.B.T.contiguous()), spectrum
    gram = torch.zeros(W.shape[1], W.shape[1], dtype=torch.float64, device=W.device)
    for start, stop in _blocks(W):
        block = W[start:stop].double()
        gram.addmm_(block.T, block)
    values, vectors = torch.linalg.eigh(gram)
    spectrum = values.flip(0).clamp_min(0.0)
    rank = _chosen(spectrum, target)
    root = spectrum[:rank] ** 0.25
    V = vectors.flip(1)[:, :rank]
    B = torch.empty(W.shape[0], rank, dtype=dtype, device=W.device)
    for start, stop in _blocks(W):
        B[start:stop] = (W[start:stop].double() @ V) / root
    return LowRank(B, (V * root).T.to(dtype).contiguous()), spectrum


def _of_factors(term: LowRank, target: Target, dtype: torch.dtype) -> tuple[LowRank, Tensor]:
    """Return the reduced factors of a product and its squared singular values."""
    U, S, Vh = svd_of_product(term)
    rank = _chosen(S**2, target)
    root = S[:rank].sqrt()
    B, A = U[:, :rank] * root, root[:, None] * Vh[:rank]
    return LowRank(B.to(dtype), A.to(dtype)), S**2


def _chosen(spectrum: Float[Tensor, " rank"], target: Target) -> int:
    """Return the rank for a target, without directions that are only rounding."""
    floor = float(spectrum[0]) * len(spectrum) * torch.finfo(torch.float64).eps
    full = int((spectrum > floor).sum())
    if target.energy is None:
        return min(target.rank or full, full)
    wanted = target.energy * float(spectrum.sum())
    return min(int((spectrum.cumsum(0) < wanted).sum()) + 1, full)


def _product(factors: LowRank, start: int, stop: int) -> Tensor:
    return factors.B[start:stop].double() @ factors.A.double()


def _blocks(W: Tensor) -> Iterator[tuple[int, int]]:
    step = max(1, _BLOCK // max(1, W[0].numel()))
    return pairwise([*range(0, len(W), step), len(W)])


def _squares(W: Tensor) -> float:
    flat = W.reshape(-1)
    parts = (flat[a:b].double() for a, b in _blocks(flat))
    return float(sum(float(part.dot(part)) for part in parts))
