"""The coefficients of the current call, in the widths that the weight sites need."""

from collections.abc import Iterator
from typing import Literal, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steer.algebra import Composition
from steer.engine._call import Call
from steer.engine._rows import Rows, unseen

Masks = tuple[Tensor | Literal[False] | None, ...]


class Calls(Protocol):
    """The source of the current call."""

    @property
    def call(self) -> Call | None: ...

    def note_checkpoint(self) -> None:
        """Note whether the running code will run again in a backward pass."""


class Columns:
    """The domain of each column of some joined factors."""

    def __init__(self, of: tuple[int, ...]) -> None:
        self.of = of
        self.index = torch.tensor(of, dtype=torch.long)


class Strength:
    """Coefficients of rows, and of tokens where scopes tell them apart."""

    def __init__(self, c: Float[Tensor, "batch pos domain"], fixed: bool = False) -> None:
        self.c, self.fixed = c, fixed
        self.silent: Bool[Tensor, "batch pos one"] = (c == 0).all(dim=2, keepdim=True)
        self.idle, self.some = bool((c == 0).all()), bool(self.silent.any())
        self._cast: dict[tuple[Columns | None, torch.dtype, torch.device], Tensor] = {}

    def over(self, columns: Columns, like: Tensor) -> Float[Tensor, "batch pos rank"]:
        """Return the coefficient of each column of joined factors."""
        key = (columns, like.dtype, like.device)
        found = self._cast.get(key)
        if found is None:
            with torch.inference_mode(False):  # they outlive the call
                wide = self.c[:, :, columns.index.to(self.c.device)]
                found = self._cast[key] = wide.to(like.dtype).to(like.device)
        return found

    def quiet(self, like: Tensor) -> Bool[Tensor, "batch pos one"]:
        """Return where every coefficient is zero, on the device of a tensor."""
        key = (None, torch.bool, like.device)
        found = self._cast.get(key)
        if found is None:
            with torch.inference_mode(False):  # they outlive the call
                found = self._cast[key] = self.silent.to(like.device)
        return found

    def writes(self, c: Float[Tensor, "batch pos domain"]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the tensors in use, and their values at other coefficients."""
        fresh = Strength(c)
        for (columns, _, _), tensor in self._cast.items():
            yield tensor, fresh.silent if columns is None else fresh.over(columns, tensor)
        yield self.silent, fresh.silent
        yield self.c, c

    def renew(self) -> None:
        """Recompute the flags after the coefficients were written."""
        self.idle, self.some = bool((self.c == 0).all()), bool(self.silent.any())


class Owner(Protocol):
    """An active composition, the key of its gate's decisions."""

    @property
    def composition(self) -> Composition: ...


class Strengths:
    """The coefficients of one composition in the current call."""

    def __init__(self, owner: Owner, fixed: bool, calls: Calls) -> None:
        self._owner, self.calls = owner, calls
        composition = owner.composition
        self._scopes = [part.scope for part in composition.parts.values()]
        self._rows: Rows | None = None
        self._whole: dict[tuple[bool, ...], Strength] = {}
        self._last: tuple[Call, Strength] | None = None
        self._one = Strength(composition.coefficients.clone()[:, None, :], True) if fixed else None

    def writes(self, composition: Composition) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the tensors of one setting for everything, and their values at another."""
        if self._one is not None:
            yield from self._one.writes(composition.coefficients[:, None, :])

    def renew(self) -> None:
        """Discard values computed from earlier coefficients."""
        self._rows = self._last = None
        if self._one is not None:
            self._one.renew()

    def prepare(self, columns: Columns, like: Tensor) -> None:
        """Create tensors ahead, which compiled code would otherwise create and see change."""
        if self._one is not None:
            self._one.over(columns, like)
            self._one.quiet(like)

    def now(self, like: Tensor) -> Strength | None:
        """Return the coefficients of the current call, or None if all are zero."""
        self.calls.note_checkpoint()
        if self._one is not None:  # a compiled graph must not depend on what the values are
            return self._one if torch.compiler.is_compiling() or not self._one.idle else None
        call = self.calls.call
        last = self._last
        if last is None or last[0] is not call:
            if call is None:
                raise unseen()
            if self._owner in call.waiting:
                return None
            last = self._last = (call, self._at(call, like.device))
        return None if last[1].idle else last[1]

    def _at(self, call: Call, device: torch.device) -> Strength:
        if self._owner.composition.gate is not None and self._owner not in call.gates:
            raise unseen()
        rows = Rows.of(call, self._owner)
        if self._rows is None or not self._rows.same(rows):
            self._rows, self._whole = rows, {}
        masks = tuple(call.token_mask(scope, device) for scope in self._scopes)
        with torch.inference_mode(False):
            if any(isinstance(mask, Tensor) for mask in masks):
                return Strength(self._masked(rows, masks, device))
            key = tuple(mask is None for mask in masks)
            if key not in self._whole:
                self._whole[key] = Strength(self._masked(rows, masks, device))
            return self._whole[key]

    def _masked(
        self, rows: Rows, masks: Masks, device: torch.device
    ) -> Float[Tensor, "batch pos domain"]:
        wide = torch.float32 if device.type == "mps" else torch.float64  # there is no float64
        c = rows.coefficients(self._owner.composition).to(wide).to(device)[:, None, :]
        on = [
            torch.tensor(mask is None, device=device).view(1, 1, 1)
            if not isinstance(mask, Tensor)
            else mask.clone()
            for mask in masks
        ]
        shape = torch.broadcast_shapes(*(m.shape for m in on))
        return torch.where(torch.cat([m.expand(shape) for m in on], dim=2), c, 0.0)
