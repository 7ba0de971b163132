"""The forwards of modules whose parameters are displaced, each linear in the displacement.

All low-rank domains of a linear module are one product with A and one with B, whatever the
coefficients: y + Σ_k c_k B_k (A_k x). Modules that read the same tensor (queries, keys and values;
gate and up) share the product with A.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steer.algebra import LowRank
from steer.algebra._term import dense
from steer.engine._patches import Uncopied
from steer.engine._rows import spread
from steer.engine._weights.forms import gain
from steer.engine._weights.plan import HookSite
from steer.engine._weights.strength import Columns, Strength, Strengths
from steer.network._parameters.stand_in import run, stand_in

Patch = Callable[[Callable[..., Any]], Uncopied]


def patches(units: Sequence[HookSite], strengths: Strengths) -> list[tuple[nn.Module, Patch]]:
    """Return each module, and the function from its present to its displaced forward."""
    found: list[tuple[nn.Module, Patch]] = []
    readers: dict[int, list[HookSite]] = {}
    for unit in units:
        if unit.linear:
            readers.setdefault(unit.reader, []).append(unit)
    known: dict[tuple[int, ...], Columns] = {}
    for members in readers.values():
        factors = [(entry.column, B) for unit in members for entry, _, B in _factors(unit)]
        of = tuple(column for column, B in factors for _ in range(B.shape[1]))
        product = Product(members, known.setdefault(of, Columns(of)), strengths)
        for index, unit in enumerate(members):
            patch = partial(LowRankForward, unit=unit, product=product, index=index)
            found.append((unit.module, partial(patch, strengths=strengths)))
    for unit in units:
        if not unit.linear:
            made = LookupForward if unit.form == "lookup" else ScaledForward
            found.append((unit.module, partial(made, unit=unit, strengths=strengths)))
    return found


class Displaced(Uncopied, ABC):
    """The forward of a module whose parameter is displaced where coefficients are not zero."""

    _position = 1  # the dimension of the output that counts tokens

    def __init__(
        self, forward: Callable[..., Tensor], unit: HookSite, strengths: Strengths
    ) -> None:
        super().__init__(forward)
        self._unit, self._strengths = unit, strengths

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the module's output, displaced; rows whose coefficients are all zero keep bits."""
        y: Tensor = self._function(*args, **kwargs)
        strength = self._strengths.now(y)
        if strength is None:
            return y
        moved = self._moved(y, strength, args, kwargs)
        compiled = strength.fixed and torch.compiler.is_compiling()
        if not (compiled or strength.some):  # a graph must not depend on what the values are
            return moved
        call = self._strengths.calls.call
        quiet = spread(strength.quiet(y), moved.shape[:-1], call, self._position)
        return torch.where(quiet, y, moved)

    @abstractmethod
    def _moved(
        self, y: Tensor, strength: Strength, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor:
        """Return the output displaced in every row."""


class Product:
    """x Aᵀ times the coefficients, for modules that read the same x."""

    def __init__(self, members: Sequence[HookSite], columns: Columns, strengths: Strengths) -> None:
        self._factors = [A for unit in members for _, A, _ in _factors(unit)]
        self._sizes = [sum(B.shape[1] for _, _, B in _factors(unit)) for unit in members]
        self._columns, self._strengths = columns, strengths
        like = _floating(members[0].module)
        self._A = None if like is None else _joined(self._factors, 0, like)
        if like is not None:
            strengths.prepare(columns, like)
        self._held: tuple[Tensor, Strength, Sequence[Tensor]] | None = None

    def part(
        self, index: int, x: Tensor, like: Tensor, strength: Strength
    ) -> Float[Tensor, "*rows rank"]:
        """Return the product for one of the modules, in the dtype of `like`."""
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
            A = self._A = _joined(self._factors, 0, like)
        if x.dtype != like.dtype or x.device != like.device:
            x = x.to(like.device, like.dtype)
        t = nn.functional.linear(x, A)
        c = strength.over(self._columns, like)
        if t.ndim != 3 or c.shape[1] != 1 or c.shape[0] != t.shape[0]:
            c = spread(c, t.shape[:-1], self._strengths.calls.call)
        return t * c


class LowRankForward(Displaced):
    """The forward of a linear module: y + Σ_k c_k B_k (A_k x)."""

    def __init__(
        self,
        forward: Callable[..., Tensor],
        unit: HookSite,
        product: Product,
        index: int,
        strengths: Strengths,
    ) -> None:
        super().__init__(forward, unit, strengths)
        self._factors = [B.mT for _, _, B in _factors(unit)]
        self._product, self._index = product, index
        like = _floating(unit.module)
        self._B = None if like is None else _joined(self._factors, 0, like)

    def _moved(
        self, y: Tensor, strength: Strength, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor:
        x = args[0] if args else next(iter(kwargs.values()))
        t = self._product.part(self._index, x, y, strength)
        B = self._B
        if B is None or B.dtype != y.dtype or B.device != y.device:
            B = self._B = _joined(self._factors, 0, y)
        return y + torch.matmul(t, B)


class LookupForward(Displaced):
    """The forward of an embedding table: y + Σ_k c_k f(i; Δ_k).

    A low-rank Δ = B A is looked up in B, `[vocab rank]`, and multiplied by A afterwards; scales
    that the module applies are included.
    """

    def __init__(
        self, forward: Callable[..., Tensor], unit: HookSite, strengths: Strengths
    ) -> None:
        super().__init__(forward, unit, strengths)
        pairs = [(entry.term, entry.column) for entry in unit.entries]
        self._low = [(term, k) for term, k in pairs if isinstance(term, LowRank)]
        self._full = [(dense(term), k) for term, k in pairs if not isinstance(term, LowRank)]
        wide = tuple(k for term, k in self._low for _ in range(term.rank))
        self._wide, self._narrow = Columns(wide), Columns(tuple(k for _, k in self._full))
        self._A: Tensor
        self._tables: list[nn.Module]
        held = getattr(unit.module, unit.leaf)
        self._prepare(held)
        for wanted in (self._wide, self._narrow):
            strengths.prepare(wanted, held)

    def _moved(
        self, y: Tensor, strength: Strength, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor:
        if self._A.dtype != y.dtype or self._A.device != y.device:
            self._prepare(y)
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
        return moved

    def _prepare(self, y: Tensor) -> None:
        """Make the modules that look up each dense table, and the one for all factors B."""
        module, leaf = self._unit.module, self._unit.leaf
        held = getattr(module, leaf)
        tables = [_joined([W], 0, held) for W, _ in self._full]
        if self._low:
            tables.append(_joined([term.B for term, _ in self._low], 1, held))
        self._tables = [stand_in(module, {leaf: table}) for table in tables]
        A = [term.A for term, _ in self._low]
        self._A = _joined(A, 0, y) if A else torch.empty(0, dtype=y.dtype, device=y.device)


class ScaledForward(Displaced):
    """The forward of a norm or of a bias: y + g(x) ⊙ Σ_k c_k Δ_k, with g = 1 for a bias."""

    def __init__(
        self, forward: Callable[..., Tensor], unit: HookSite, strengths: Strengths
    ) -> None:
        super().__init__(forward, unit, strengths)
        self._position = unit.position
        self._deltas = [dense(entry.term) for entry in unit.entries]
        self._columns = Columns(tuple(entry.column for entry in unit.entries))
        self._D: Tensor
        self._gain: tuple[nn.Module, nn.Module] | None = None
        self._met: tuple[torch.dtype, torch.device] | None = None
        held = getattr(unit.module, unit.leaf)
        self._prepare(held)
        strengths.prepare(self._columns, held)

    def _moved(
        self, y: Tensor, strength: Strength, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor:
        if self._D.dtype != y.dtype or self._D.device != y.device:
            self._prepare(y)
        d = strength.over(self._columns, y) @ self._D
        d = spread(d, y.shape[:-1], self._strengths.calls.call, self._position)
        if self._gain is not None:
            one, zero = self._gain
            d = d * (run(one, *args, **kwargs) - run(zero, *args, **kwargs))
        return y + d

    def _prepare(self, y: Tensor) -> None:
        """Bring the deltas, and the modules that show g, to where the module works now."""
        module, leaf = self._unit.module, self._unit.leaf
        held = getattr(module, leaf).detach()
        if self._unit.form != "added" and self._met != (held.dtype, held.device):
            with torch.inference_mode(False):  # they outlive the call
                self._gain = gain(module, leaf, held)
            self._met = held.dtype, held.device
        self._D = _joined([delta[None] for delta in self._deltas], 0, y)


def _factors(unit: HookSite) -> list[tuple[Any, Tensor, Tensor]]:
    """Return entry, A and B of each domain as they multiply the input: x W takes them swapped."""
    low = [(entry, entry.term) for entry in unit.entries if isinstance(entry.term, LowRank)]
    if unit.form == "transposed":
        return [(entry, term.B.mT, term.A.mT) for entry, term in low]
    return [(entry, term.A, term.B) for entry, term in low]


def _floating(module: nn.Module) -> Tensor | None:
    """Return a tensor with the dtype and device in which a module works, if it has one."""
    own = (t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point())
    return next((t for t in own if not t.is_meta), None)


def _joined(factors: Sequence[Tensor], dim: int, like: Tensor) -> Tensor:
    """Return factors joined, in the dtype and on the device of another tensor."""
    with torch.inference_mode(False):  # they outlive the call
        return torch.cat([f.detach().to(like.device, like.dtype) for f in factors], dim=dim)
