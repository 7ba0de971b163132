"""One active composition: its steps at each layer, bound to the rows of the current call."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Composition
from steer.algebra._operator import Prepared, cast
from steer.engine._base import WeightMode
from steer.engine._call import Call
from steer.engine._markers import Marker
from steer.engine._patches import StopForward
from steer.engine._rows import Rows, unseen
from steer.engine._runtime import outliving
from steer.engine._steps import steps_of
from steer.engine._weights.displaced import patches
from steer.engine._weights.merging import Merging
from steer.engine._weights.plan import HookSite, check_held, held_in
from steer.engine._weights.strength import Calls, Strengths

Bound = dict[int, list[Prepared]]


class Home(Calls, Protocol):
    """The injector of a model, which a steering enters and leaves."""

    @property
    def stack(self) -> "tuple[Steering, ...]": ...

    def enter(self, steering: "Steering") -> None: ...

    def leave(self, steering: "Steering") -> None: ...

    def settle(self) -> None: ...


class Steering:
    """A composition at work in a model: it binds its steps to rows, and applies them."""

    def __init__(
        self,
        composition: Composition,
        units: Sequence[HookSite],
        home: Home,
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
        self.steps = steps_of(composition)
        self._bound: Bound = {}
        self._laid: Bound = {}  # the same in the dtype and on the device last met
        self._bound_to: Rows | None = None
        gate = composition.gate
        everywhere = all(part.scope.everything for part in composition.parts.values())
        # the top-level call must be seen for rows, a gate, or a scope other than all
        self.needs_call = composition.per_row or gate is not None or not everywhere
        # the gate needs a run of its own where the prompt meets displaced weights before its layer
        self.reads_ahead = gate is not None and any(unit.layer <= gate.layer for unit in units)
        self._strengths = Strengths(self, not self.needs_call, home)
        self.patches = patches(units, self._strengths)
        if not self.needs_call:
            self._bind(Rows())

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

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers where the stream is read or written."""
        gate = self.composition.gate
        return tuple(sorted({*self.steps, *([gate.layer] if gate else [])}))

    def apply(self, layer: int, h: Tensor, call: Call | None) -> Tensor:
        """Return the residual stream after this composition's steps at a layer."""
        if not self.needs_call:
            return self._run(layer, h, None)
        if call is None:
            raise unseen()
        gate = self.composition.gate
        if gate is not None and layer == gate.layer and self not in call.gates:
            if self not in call.waiting or self is call.reader:
                call.gates[self] = self._decide(h, call)
            if self is call.reader and not torch.compiler.is_compiling():
                raise StopForward
        if self in call.waiting or layer not in self.steps:
            return h
        rows = Rows.of(call, self)
        if self._bound_to is None or not self._bound_to.same(rows):
            self._bind(rows)
        return self._run(layer, h, call)

    def _run(self, layer: int, h: Tensor, call: Call | None) -> Tensor:
        laid = self._laid[layer]
        for k, step in enumerate(self.steps[layer]):
            mask = None if call is None else call.token_mask(step.scope, h.device)
            if mask is False:
                continue
            prepared = laid[k]
            if prepared[0].dtype != h.dtype or prepared[0].device != h.device:
                with torch.inference_mode(False):  # they outlive the call
                    prepared = laid[k] = cast(self._bound[layer][k], h)
            changed = step.operator.apply(h, prepared)
            h = changed if mask is None else torch.where(mask, changed, h)
        return h

    def _decide(self, h: Tensor, call: Call) -> Float[Tensor, "batch domain"]:
        gate = self.composition.gate
        if gate is None:
            raise unseen()
        columns = call.last_prompt_columns().to(h.device)
        x = h[torch.arange(h.shape[0], device=h.device), columns]
        return gate(x)[:, gate.columns(self.composition.domains)].cpu()

    # -- bound tensors ---------------------------------------------------------------------------

    def _bind(self, rows: Rows) -> None:
        """Prepare every step's tensors for the rows of a call."""
        bound = self._prepared(self.composition, rows)
        self._laid = {layer: list(steps) for layer, steps in bound.items()}
        self._bound, self._bound_to = bound, rows

    @torch.inference_mode(False)  # what is bound outlives the call
    def _prepared(self, composition: Composition, rows: Rows) -> Bound:
        c = rows.coefficients(composition)
        return {layer: [step.prepare(c) for step in steps] for layer, steps in self.steps.items()}

    def _write(self, composition: Composition) -> None:
        """Take other coefficients; if that fails, nothing changes.

        Where no call must be seen they are written into the bound tensors, so that compiled
        graphs stay valid.
        """
        if composition is self.composition:
            return
        writes = [*self._writes(composition), *self._strengths.writes(composition)]
        with ExitStack() as undo:
            undo.callback(self._strengths.renew)  # the last to be undone
            undo.callback(setattr, self, "composition", self.composition)
            for target, value in writes:
                undo.callback(target.copy_, target.clone())
                target.copy_(value)
            self.composition = composition
            self._strengths.renew()
            self._bound_to = None if self.needs_call else self._bound_to
            undo.pop_all()

    def _writes(self, composition: Composition) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the bound tensors of one setting for everything, and their new values."""
        if self.needs_call:
            return
        fresh = self._prepared(composition, Rows())
        for bound in (self._bound, self._laid):
            for layer, steps in bound.items():
                for held, new in zip(steps, fresh[layer], strict=True):
                    yield from zip(held, new, strict=True)
