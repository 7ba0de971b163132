"""Displacements of tables, norms and biases, each by its linearity in the parameter."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steer.algebra import LowRank, Term
from steer.algebra._term import dense
from steer.engine._patches import Uncopied
from steer.engine._weights.forms import gain
from steer.engine._weights.linear import kept, laid
from steer.engine._weights.spread import spread
from steer.engine._weights.strength import Columns, Strengths
from steer.network._parameters.stand_in import run, stand_in


class LookupForward(Uncopied):
    """The forward of an embedding whose table is displaced: y + Σ_k c_k f(i; Δ_k).

    A low-rank Δ = B A is looked up in B, `[vocab rank]`, and multiplied by A afterwards; scales
    that the module applies come along.
    """

    def __init__(
        self,
        forward: Callable[..., Tensor],
        module: nn.Module,
        leaf: str,
        terms: Sequence[Term],
        columns: Sequence[int],
        strengths: Strengths,
    ) -> None:
        super().__init__(forward)
        self._module, self._leaf, self._strengths = module, leaf, strengths
        pairs = list(zip(terms, columns, strict=True))
        self._low = [(term, k) for term, k in pairs if isinstance(term, LowRank)]
        self._full = [(dense(term), k) for term, k in pairs if not isinstance(term, LowRank)]
        wide = tuple(k for term, k in self._low for _ in range(term.rank))
        self._wide, self._narrow = Columns(wide), Columns(tuple(k for _, k in self._full))
        self._A: Tensor
        self._tables: list[nn.Module]
        held = getattr(module, leaf)
        self._lay(held)
        for wanted in (self._wide, self._narrow):
            strengths.prepare(wanted, held)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the module's output, displaced."""
        y: Tensor = self._function(*args, **kwargs)
        strength = self._strengths.now(y)
        if strength is None:
            return y
        if self._A.dtype != y.dtype or self._A.device != y.device:
            self._lay(y)
        call = self._strengths.calls.call
        found = [run(table, *args, **kwargs) for table in self._tables]
        moved = y
        if self._low:
            c = spread(strength.over(self._wide, y), y.shape[:-1], call)
            moved = moved + (found.pop() * c) @ self._A
        if self._full:
            c = spread(strength.over(self._narrow, y), y.shape[:-1], call)
            for k, rows in enumerate(found):
                moved = moved + c[..., k : k + 1] * rows
        return kept(y.expand_as(moved), moved, strength, self._strengths)

    def _lay(self, y: Tensor) -> None:
        """Make the modules that look up each dense table, and the one for all factors B."""
        held = getattr(self._module, self._leaf)
        tables = [laid([W], 0, held) for W, _ in self._full]
        if self._low:
            tables.append(laid([term.B for term, _ in self._low], 1, held))
        self._tables = [stand_in(self._module, {self._leaf: table}) for table in tables]
        A = [term.A for term, _ in self._low]
        self._A = laid(A, 0, y) if A else torch.empty(0, dtype=y.dtype, device=y.device)


class ScaledForward(Uncopied):
    """The forward of a norm or of a bias that is displaced: y + g(x) ⊙ Σ_k c_k Δ_k."""

    def __init__(
        self,
        forward: Callable[..., Tensor],
        module: nn.Module,
        leaf: str,
        deltas: Sequence[Float[Tensor, " d_model"]],
        columns: Sequence[int],
        strengths: Strengths,
        constant: bool,
        position: int,
    ) -> None:
        super().__init__(forward)
        self._module, self._leaf, self._constant = module, leaf, constant
        self._deltas, self._columns = deltas, Columns(tuple(columns))
        self._strengths, self._position = strengths, position
        self._D: Tensor
        self._gain: tuple[nn.Module, nn.Module] | None = None
        self._met: tuple[torch.dtype, torch.device] | None = None
        held = getattr(module, leaf)
        self._lay(held)
        strengths.prepare(self._columns, held)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the module's output, displaced."""
        y: Tensor = self._function(*args, **kwargs)
        strength = self._strengths.now(y)
        if strength is None:
            return y
        if self._D.dtype != y.dtype or self._D.device != y.device:
            self._lay(y)
        d = strength.over(self._columns, y) @ self._D
        d = spread(d, y.shape[:-1], self._strengths.calls.call, self._position)
        if self._gain is not None:
            one, zero = self._gain
            d = d * (run(one, *args, **kwargs) - run(zero, *args, **kwargs))
        return kept(y, y + d, strength, self._strengths, self._position)

    def _lay(self, y: Tensor) -> None:
        """Bring the deltas, and the modules that show g, to where the module works now."""
        held = getattr(self._module, self._leaf).detach()
        if not self._constant and self._met != (held.dtype, held.device):
            with torch.inference_mode(False):  # they outlive the call
                self._gain = gain(self._module, self._leaf, held)
            self._met = held.dtype, held.device
        self._D = laid([delta[None] for delta in self._deltas], 0, y)
