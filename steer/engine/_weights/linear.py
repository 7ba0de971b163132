"""Low-rank displacements of linear modules: y + Σ_k c_k B_k (A_k x), coefficients in rank space.

All domains of a module are one product with A and one with B, whatever the coefficients. Modules
that read the same tensor (queries, keys and values; gate and up) share the product with A.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steer.engine._patches import Uncopied
from steer.engine._weights.spread import spread
from steer.engine._weights.strength import Columns, Strength, Strengths


@dataclass(frozen=True, eq=False, slots=True)
class Factors:
    """The joined factors of one module, as they multiply its input."""

    module: nn.Module  # the module
    A: tuple[Float[Tensor, "rank in"], ...]  # `[rank in]` of each domain
    B: tuple[Float[Tensor, "out rank"], ...]  # `[out rank]` of each domain
    columns: tuple[int, ...]  # column of each domain in the coefficients

    @property
    def rank(self) -> int:
        """Columns of all B together."""
        return sum(B.shape[1] for B in self.B)


class Product:
    """x Aᵀ times the coefficients, for modules that read the same x."""

    def __init__(self, members: Sequence[Factors], columns: Columns, strengths: Strengths) -> None:
        self._factors = [A for member in members for A in member.A]
        self._sizes = [member.rank for member in members]
        self._columns, self._strengths = columns, strengths
        like = floating(members[0].module)
        self._A = None if like is None else laid(self._factors, 0, like)
        if like is not None:
            strengths.prepare(columns, like)
        self._held: tuple[Tensor, Strength, Sequence[Tensor]] | None = None

    def part(self, index: int, x: Tensor, like: Tensor, strength: Strength) -> Tensor:
        """Return `[* rank]` for one of the modules, in the dtype of `like`."""
        if len(self._sizes) == 1:
            return self._product(x, like, strength)
        held = None if torch.compiler.is_compiling() else self._held
        if held is not None and held[0] is x and held[1] is strength:
            parts = held[2]
        else:
            parts = self._product(x, like, strength).split_with_sizes(self._sizes, -1)
        if not torch.compiler.is_compiling():
            self._held = None if index == len(self._sizes) - 1 else (x, strength, parts)
        return parts[index]

    def _product(self, x: Tensor, like: Tensor, strength: Strength) -> Tensor:
        A = self._A
        if A is None or A.dtype != like.dtype or A.device != like.device:
            A = self._A = laid(self._factors, 0, like)
        if x.dtype != like.dtype or x.device != like.device:
            x = x.to(like.device, like.dtype)
        t = nn.functional.linear(x, A)
        c = strength.over(self._columns, like)
        if t.ndim != 3 or c.shape[1] != 1 or c.shape[0] != t.shape[0]:
            c = spread(c, t.shape[:-1], self._strengths.calls.call)
        return t * c


class LowRankForward(Uncopied):
    """The forward of a linear module whose weight is displaced."""

    def __init__(
        self,
        forward: Callable[..., Tensor],
        factors: Factors,
        product: Product,
        index: int,
        strengths: Strengths,
    ) -> None:
        super().__init__(forward)
        self._factors = [B.mT for B in factors.B]
        self._product, self._index = product, index
        self._strengths = strengths
        like = floating(factors.module)
        self._B = None if like is None else laid(self._factors, 0, like)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the module's output, displaced."""
        y: Tensor = self._function(*args, **kwargs)
        strength = self._strengths.now(y)
        if strength is None:
            return y
        x = args[0] if args else next(iter(kwargs.values()))
        t = self._product.part(self._index, x, y, strength)
        B = self._B
        if B is None or B.dtype != y.dtype or B.device != y.device:
            B = self._B = laid(self._factors, 0, y)
        moved = y + torch.matmul(t, B)
        return kept(y, moved, strength, self._strengths)


def floating(module: nn.Module) -> Tensor | None:
    """Return a tensor of the dtype and on the device in which a module works, if it shows."""
    own = (t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point())
    return next((t for t in own if not t.is_meta), None)


def laid(factors: Sequence[Tensor], dim: int, like: Tensor) -> Tensor:
    """Return factors joined, in the dtype and on the device of a module's output."""
    with torch.inference_mode(False):  # they outlive the call
        return torch.cat([f.detach().to(like.device, like.dtype) for f in factors], dim=dim)


def kept(y: Tensor, moved: Tensor, strength: Strength, strengths: Strengths, at: int = 1) -> Tensor:
    """Return the displaced output, with every row bit for bit whose coefficients are all zero."""
    compiled = strength.fixed and torch.compiler.is_compiling()
    if not (compiled or strength.some):  # a graph must not depend on what the values are
        return moved
    quiet = spread(strength.quiet(y), y.shape[:-1], strengths.calls.call, at)
    return torch.where(quiet, y, moved)
