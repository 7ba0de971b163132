"""The forwards of modules whose parameters are displaced, each linear in the displacement.

All low-rank domains of a linear module are one product with A and one with B, whatever the
coefficients: y + Σ_k c_k B_k (A_k x). Modules that read the same tensor (queries, keys and values;
gate and up) share the product with A.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steer.algebra import LowRank
from steer.algebra._term import dense
from steer.engine._patches import Uncopied, Undo, replace
from steer.engine._weights.forms import gain
from steer.engine._weights.plan import HookSite, working
from steer.engine._weights.strength import Columns, Strength
from steer.network._parameters.stand_in import run, stand_in

# from a module's output to the coefficients of the call under way; None if all are zero
Now = Callable[[Tensor], Strength | None]


def displaced_forwards(
    units: Sequence[HookSite], now: Now, fixed: Strength | None = None
) -> list["Displaced"]:
    """Return the displaced forwards of modules; `fixed` are coefficients that no call changes."""
    found: list[Displaced] = []
    readers: dict[int, list[HookSite]] = {}
    for unit in units:
        if unit.linear:
            readers.setdefault(unit.reader, []).append(unit)
    known: dict[tuple[int, ...], Columns] = {}
    for members in readers.values():
        factors = [(entry.column, B) for unit in members for entry, _, B in _factors(unit)]
        of = tuple(column for column, B in factors for _ in range(B.shape[1]))
        product = Product(members, known.setdefault(of, Columns(of)))
        found += [LowRankForward(unit, now, product, k) for k, unit in enumerate(members)]
    for unit in units:
        if not unit.linear:
            made = LookupForward if unit.form == "lookup" else ScaledForward
            found.append(made(unit, now))
    if fixed is not None:
        for forward in found:
            forward.prepare(fixed)
    return found


class Joined:
    """Tensors joined in the dtype and on the device where they are used."""

    def __init__(self, parts: Sequence[Tensor], dim: int, like: Tensor | None) -> None:
        self._parts, self._dim = parts, dim
        self._joined: Tensor | None = None
        if like is not None and not like.is_meta:
            self.like(like)

    def like(self, y: Tensor) -> Tensor:
        """Return them in the dtype and on the device of another tensor."""
        joined = self._joined
        if joined is None or joined.dtype != y.dtype or joined.device != y.device:
            with torch.inference_mode(False):  # they outlive the call
                parts = [part.detach().to(y.device, y.dtype) for part in self._parts]
                joined = self._joined = torch.cat(parts, dim=self._dim)
        return joined


class Displaced(Uncopied, ABC):
    """The forward of a module whose parameter is displaced where coefficients are not zero."""

    columns: tuple[Columns, ...] = ()
    _position = 1  # the dimension of the output that counts tokens

    def __init__(self, unit: HookSite, now: Now) -> None:
        super().__init__(unit.module.forward)
        self.module = unit.module
        self._unit, self._now = unit, now
        self._made_for: tuple[torch.dtype, torch.device] | None = None

    def install(self, undo: Undo) -> None:
        """Displace the present forward of the module, which may be displaced already."""
        super().__init__(self.module.forward)
        replace(self.module, "forward", self, undo)

    def prepare(self, fixed: Strength) -> None:
        """Create tensors ahead, which compiled code would otherwise create and see change."""
        if (like := working(self.module)) is not None and not like.is_meta:
            for columns in self.columns:
                fixed.over(columns, like)
            fixed.quiet(like)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the module's output, displaced; rows whose coefficients are all zero keep bits."""
        y: Tensor = self._function(*args, **kwargs)
        strength = self._now(y)
        if strength is None:
            return y
        moved = self._moved(y, strength, args, kwargs)
        # a graph must not depend on what the values are
        if not (torch.compiler.is_compiling() or strength.some):
            return moved
        quiet = strength.spread(strength.quiet(y), moved.shape[:-1], self._position)
        return torch.where(quiet, y, moved)

    @abstractmethod
    def _moved(
        self, y: Tensor, strength: Strength, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor:
        """Return the output displaced in every row."""

    def _held(self) -> Tensor:
        """Return the parameter, after making stand-ins anew if it has been converted."""
        held: Tensor = getattr(self._unit.module, self._unit.leaf)
        if self._made_for != (held.dtype, held.device):
            with torch.inference_mode(False):  # they outlive the call
                self._make(held.detach())
            self._made_for = held.dtype, held.device
        return held

    def _make(self, held: Tensor) -> None:
        """Make stand-ins of the module for the dtype and device of its parameter."""


class Product:
    """x Aᵀ times the coefficients, for modules that read the same x."""

    def __init__(self, members: Sequence[HookSite], columns: Columns) -> None:
        self._sizes = [sum(B.shape[1] for _, _, B in _factors(unit)) for unit in members]
        factors = [A for unit in members for _, A, _ in _factors(unit)]
        self._A, self.columns = Joined(factors, 0, working(members[0].module)), columns
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
        if x.dtype != like.dtype or x.device != like.device:
            x = x.to(like.device, like.dtype)
        t = nn.functional.linear(x, self._A.like(like))
        c = strength.over(self.columns, like)
        if t.ndim != 3 or c.shape[1] != 1 or c.shape[0] != t.shape[0]:
            c = strength.spread(c, t.shape[:-1])
        return t * c


class LowRankForward(Displaced):
    """The forward of a linear module: y + Σ_k c_k B_k (A_k x)."""

    def __init__(self, unit: HookSite, now: Now, product: Product, index: int) -> None:
        super().__init__(unit, now)
        self._product, self._index, self.columns = product, index, (product.columns,)
        self._B = Joined([B.mT for _, _, B in _factors(unit)], 0, working(unit.module))

    def _moved(
        self, y: Tensor, strength: Strength, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor:
        x = args[0] if args else next(iter(kwargs.values()))
        t = self._product.part(self._index, x, y, strength)
        return y + torch.matmul(t, self._B.like(y))


class LookupForward(Displaced):
    """The forward of an embedding table: y + Σ_k c_k f(i; Δ_k).

    A low-rank Δ = B A is looked up in B, `[vocab rank]`, and multiplied by A afterwards; scales
    that the module applies are included.
    """

    def __init__(self, unit: HookSite, now: Now) -> None:
        super().__init__(unit, now)
        pairs = [(entry.term, entry.column) for entry in unit.entries]
        self._low = [(term, k) for term, k in pairs if isinstance(term, LowRank)]
        self._full = [(dense(term), k) for term, k in pairs if not isinstance(term, LowRank)]
        wide = tuple(k for term, k in self._low for _ in range(term.rank))
        self.columns = Columns(wide), Columns(tuple(k for _, k in self._full))
        held = self._held()
        self._A = Joined([term.A for term, _ in self._low], 0, held if self._low else None)

    def _moved(
        self, y: Tensor, strength: Strength, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor:
        self._held()
        wide, narrow = self.columns
        found = [run(table, *args, **kwargs) for table in self._tables]
        moved = y
        if self._low:
            c = strength.spread(strength.over(wide, y), y.shape[:-1])
            moved = moved + (found.pop() * c) @ self._A.like(y)
        if self._full:
            c = strength.spread(strength.over(narrow, y), y.shape[:-1])
            for k, rows in enumerate(found):
                moved = moved + c[..., k : k + 1] * rows
        return moved

    def _make(self, held: Tensor) -> None:
        """Make the modules that look up each dense table, and the one for all factors B."""
        tables = [W.to(held.device, held.dtype) for W, _ in self._full]
        if self._low:
            tables.append(Joined([term.B for term, _ in self._low], 1, held).like(held))
        stand_ins = [stand_in(self._unit.module, {self._unit.leaf: table}) for table in tables]
        self._tables: list[nn.Module] = stand_ins


class ScaledForward(Displaced):
    """The forward of a norm or of a bias: y + g(x) ⊙ Σ_k c_k Δ_k, with g = 1 for a bias."""

    def __init__(self, unit: HookSite, now: Now) -> None:
        super().__init__(unit, now)
        self._position = unit.position
        self.columns = (Columns(tuple(entry.column for entry in unit.entries)),)
        self._D = Joined([dense(entry.term)[None] for entry in unit.entries], 0, self._held())

    def _moved(
        self, y: Tensor, strength: Strength, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor:
        self._held()
        d = strength.over(self.columns[0], y) @ self._D.like(y)
        d = strength.spread(d, y.shape[:-1], self._position)
        if self._unit.form != "added":
            one, zero = self._gain
            d = d * (run(one, *args, **kwargs) - run(zero, *args, **kwargs))
        return y + d

    def _make(self, held: Tensor) -> None:
        """Make the two modules whose outputs differ by g."""
        if self._unit.form != "added":
            self._gain = gain(self._unit.module, self._unit.leaf, held)


def _factors(unit: HookSite) -> list[tuple[Any, Tensor, Tensor]]:
    """Return entry, A and B of each domain as they multiply the input: x W takes them swapped."""
    low = [(entry, entry.term) for entry in unit.entries if isinstance(entry.term, LowRank)]
    if unit.form == "transposed":
        return [(entry, term.B.mT, term.A.mT) for entry, term in low]
    return [(entry, term.A, term.B) for entry, term in low]
