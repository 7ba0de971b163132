"""One active composition: its steps at each layer, bound to the rows of the current call."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Composition, Scope
from steer.engine._base import WeightMode
from steer.engine._call import BatchSlice, Call
from steer.engine._markers import Marker
from steer.engine._patches import StopForward
from steer.engine._runtime import outliving
from steer.engine._steps import BoundSteps, Hidden, TokenMask, placed, steps_of
from steer.engine._weights.displaced import displaced_forwards
from steer.engine._weights.merging import Merging
from steer.engine._weights.plan import HookSite, check_held, held_in
from steer.engine._weights.strength import Strength
from steer.errors import ScopeError

if TYPE_CHECKING:
    from steer.engine._injector import Injector


class Steering:
    """A composition at work in a model: it binds its steps to rows, and applies them."""

    def __init__(
        self,
        composition: Composition,
        units: tuple[HookSite, ...],
        home: "Injector",
        markers: Mapping[str, Marker],
        merging: Merging,
        weights: WeightMode,
    ) -> None:
        self.composition, self.weights = composition, weights
        self.markers = markers  # of its scopes, by their text
        self.merging = merging  # its weight sites that are merged
        self._home = home
        self._held = held_in(units)
        check_held(composition, self._held)
        self._steps, gate = steps_of(composition), composition.gate
        self._scopes = [part.scope for part in composition.parts.values()]
        # layers where the stream is read or written
        self.layers = {*self._steps, *([gate.layer] if gate else [])}
        # the top-level call must be seen for rows, a gate, or a scope other than all
        self.needs_call = composition.per_row or gate is not None or placed(composition)
        # the gate needs a run of its own where the prompt meets displaced weights before its layer
        self.reads_ahead = gate is not None and any(unit.layer <= gate.layer for unit in units)
        self._one: Strength | None = None  # for everything
        self._bound: BoundSteps
        if not self.needs_call:
            self._one = Strength(composition.coefficients.clone()[:, None, :])
            self._bound = BoundSteps(self._steps, composition.coefficients, home.likes)
        self._rows: Float[Tensor, "row domain"]  # the coefficients of the last call's rows
        # what these depend on: rows per prompt, decisions of the gate, and a part of a larger call
        self._bound_to: tuple[int, Tensor | None, BatchSlice | None] | None = None
        self._whole: dict[tuple[bool, ...], Strength] = {}  # of these rows, by scopes that act
        self._last: tuple[Call, Strength] | None = None
        self.displaced = displaced_forwards(units, self._strength, self._one)
        self._renew()

    # -- the attachment --------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether it has not been removed."""
        return self in self._home.stack

    def enter(self) -> None:
        """Start injecting; if that fails, nothing changes."""
        with ExitStack() as undo:
            undo.callback(self._home.settle)
            undo.callback(self._home.leave, self)
            self._home.enter(self)
            undo.callback(self.merging.leave)
            self.merging.merge(self.composition)
            undo.pop_all()

    @outliving()
    def update(self, composition: Composition) -> None:
        """Take other coefficients of the same vectors; if that fails, nothing changes."""
        check_held(composition, self._held)
        self._home.check_batching()
        before = self.composition
        with ExitStack() as undo:
            undo.callback(self.merging.merge, before)
            self.merging.merge(composition)
            undo.callback(self._write, before)
            self._write(composition)
            undo.pop_all()

    @outliving()
    def remove(self) -> None:
        """Stop injecting; a second call does nothing."""
        with ExitStack() as leaving:  # all of it, also if a part of it fails
            leaving.callback(self._home.settle)
            leaving.callback(self.merging.leave)
            leaving.callback(self._home.leave, self)

    # -- at work ---------------------------------------------------------------------------------

    def apply(self, layer: int, h: Hidden, call: Call | None) -> Hidden:
        """Return the residual stream after this composition's steps at a layer."""
        if not self.needs_call:
            return self._bound.apply(layer, h, _everything)
        if call is None:
            raise unseen()

        def tokens(scope: Scope) -> TokenMask:
            return call.token_mask(scope, h.device)

        if call.ready:
            return self._bound.apply(layer, h, tokens) if layer in self._steps else h
        gate = self.composition.gate
        if gate is not None and layer == gate.layer and self not in call.gates:
            if self not in call.waiting or self is call.reader:
                at = call.last_prompt_columns().to(h.device)
                opened = gate(h[torch.arange(h.shape[0], device=h.device), at])
                call.gates[self] = opened[:, gate.columns(self.composition.domains)].cpu()
            if self is call.reader and not torch.compiler.is_compiling():
                raise StopForward
        if self in call.waiting or layer not in self._steps:
            return h
        self._bind(call.expand, call.gates.get(self), call.batch_slice)
        return self._bound.apply(layer, h, tokens)

    def ready(self, call: Call, device: torch.device) -> bool:
        """Compute ahead what a forward needs, for compiled code; False if its gate must be read."""
        if not self.needs_call:
            return True
        if self.composition.gate is not None and self not in call.gates:
            return False
        self._bind(call.expand, call.gates.get(self), call.batch_slice)
        if self.displaced:
            self._last = call, self._strength_in(call, device)
            for forward in self.displaced:
                forward.prepare(self._last[1])
        for scope in self._scopes:
            call.token_mask(scope, device)
        return True

    def _strength(self, like: Tensor) -> Strength | None:
        """Return the coefficients of displaced weights in this call, or None if all are zero."""
        call = self._home.seen()
        if self._one is not None:  # a compiled graph must not depend on what the values are
            return self._one if torch.compiler.is_compiling() or not self._one.idle else None
        if call is None:
            raise unseen()
        if self in call.waiting:
            return None
        if self._last is None or (self._last[0] is not call and not call.ready):
            self._last = call, self._strength_in(call, like.device)
        found = self._last[1]
        return found if torch.compiler.is_compiling() or not found.idle else None

    @torch.inference_mode(False)  # what is bound outlives the call
    def _strength_in(self, call: Call, device: torch.device) -> Strength:
        if self.composition.gate is not None and self not in call.gates:
            raise unseen()
        self._bind(call.expand, call.gates.get(self), call.batch_slice)
        masks = [call.token_mask(scope, device) for scope in self._scopes]
        key = tuple(mask is None for mask in masks)
        whole = not any(isinstance(mask, Tensor) for mask in masks)
        if whole and (known := self._whole.get(key)):
            known.call = call
            return known
        wide = torch.float32 if device.type == "mps" else torch.float64  # there is no float64
        c = self._rows.to(wide).to(device)[:, None, :]
        on = [
            mask.clone() if isinstance(mask, Tensor) else c.new_full((1, 1, 1), mask is None).bool()
            for mask in masks
        ]
        acts = torch.cat(torch.broadcast_tensors(*on), dim=2)
        found = Strength(torch.where(acts, c, 0.0), call)
        if whole:
            self._whole[key] = found
        return found

    # -- bound tensors ---------------------------------------------------------------------------

    @torch.inference_mode(False)  # what is bound outlives the call
    def _bind(
        self, expand: int = 1, weights: Tensor | None = None, part: BatchSlice | None = None
    ) -> None:
        """Prepare the steps for the rows of a call, unless they are those of the last one."""
        of = expand, weights, part
        if self._bound_to and all(a is b for a, b in zip(of, self._bound_to, strict=True)):
            return
        c = self.composition.coefficients
        if self.composition.per_row:
            c = c if part is None else c[list(part.rows)]
            c = c.repeat_interleave(expand, dim=0)
        self._rows = c if weights is None else c * weights
        self._bound, self._whole = BoundSteps(self._steps, self._rows, self._home.likes), {}
        self._bound_to = of

    def _write(self, composition: Composition) -> None:
        """Take other coefficients; if that fails, nothing changes.

        Where no call must be seen they are written into the bound tensors, so that compiled
        graphs stay valid.
        """
        if composition is self.composition:
            return
        writes = [*self._writes(composition.coefficients)]
        with ExitStack() as undo:
            undo.callback(self._renew)  # the last to be undone
            undo.callback(setattr, self, "composition", self.composition)
            for target, value in writes:
                undo.callback(target.copy_, target.clone())
                target.copy_(value)
            self.composition = composition
            self._renew()
            undo.pop_all()

    def _renew(self) -> None:
        """Discard what was computed from earlier coefficients."""
        self._bound_to = self._last = None
        if self._one is not None:
            self._one.renew()
        elif self.composition.gate is None:
            self._bind()  # what most calls need, before compiled code would make it

    def _writes(self, c: Float[Tensor, "row domain"]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the tensors of one setting for everything, and their values at another."""
        if self._one is not None:
            yield from self._bound.writes(c)
            yield from self._one.writes(c[:, None, :])


def _everything(scope: object) -> None:
    """Return the mask of all tokens."""


def unseen() -> ScopeError:
    """Return the error for modules that run outside a watched call."""
    return ScopeError(
        "the steered blocks ran outside the model's own forward",
        found="a call of the inner text model, below the top-level forward, or checkpointed "
        "activations that a backward pass computes again",
        expected="a call of the model itself: rows, scopes and gates are read there",
        do="call the causal language model, or steer with scope 'all' and one setting",
    )
