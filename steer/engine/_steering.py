"""One active composition: its steps at each layer, bound to the rows of the current call."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Composition, Operator, Scope, Weight, get_operator
from steer.algebra._operator import Prepared, cast
from steer.engine._ahead import Enough
from steer.engine._call import Call
from steer.engine._markers import Marker
from steer.engine._rows import Rows, unseen
from steer.engine._weights import bounds
from steer.engine._weights.merging import Merging
from steer.engine._weights.patched import patches
from steer.engine._weights.plan import Unit
from steer.engine._weights.strength import Calls, Strengths
from steer.errors import RowsError

_NONE: Mapping[str, Marker] = MappingProxyType({})
Bound = dict[int, list[Prepared]]


@dataclass(frozen=True, eq=False, slots=True)
class Step:
    """One operator at one site, with the directions of the domains that use it there."""

    operator: Operator  # the operator
    scope: Scope  # the tokens it acts on
    columns: tuple[int, ...]  # column of each direction's domain in the coefficients
    # `[domain d_model]`, in residual units, at least float32, on the CPU
    V: Float[Tensor, "domain d_model"]


def plan(composition: Composition) -> Mapping[int, tuple[Step, ...]]:
    """Return the residual steps of a composition at each layer, in the order in which they run."""
    groups: dict[int, dict[tuple[str, Scope], list[tuple[int, Tensor]]]] = {}
    for column, part in enumerate(composition.parts.values()):
        for site in part.vector.sites:
            if isinstance(site, Weight):
                continue
            v = part.vector.direction(site.layer)
            v = v if v.dtype in (torch.float32, torch.float64) else v.float()
            members = groups.setdefault(site.layer, {})
            members.setdefault((part.operator, part.scope), []).append((column, v))
    return {layer: _steps(members) for layer, members in sorted(groups.items())}


def _steps(members: Mapping[tuple[str, Scope], list[tuple[int, Tensor]]]) -> tuple[Step, ...]:
    steps = []
    for (name, scope), entries in members.items():
        columns = tuple(column for column, _ in entries)
        V = torch.stack([v.detach().cpu() for _, v in entries])
        steps.append(Step(get_operator(name), scope, columns, V))
    return tuple(sorted(steps, key=lambda step: (step.operator.rank, step.columns)))


class Steering:
    """A composition at work in a model: knows its steps, binds them to rows, applies them.

    `needs_call` tells whether the top-level call must be seen: for rows, a gate, or a scope other
    than all.

    `reads_ahead` tells whether its gate must be decided in a run of its own, since weights are
    displaced that the prompt meets before the layer where the gate is read.

    `merging` is what is merged into the weights for it, if anything is.
    """

    def __init__(
        self,
        composition: Composition,
        units: Sequence[Unit] = (),
        calls: Calls | None = None,
        markers: Mapping[str, Marker] = _NONE,
        merging: Merging | None = None,
    ) -> None:
        self.markers = markers
        self._held = bounds.held(units)
        self.check(composition)
        self.composition = composition
        self.merging = merging
        self.steps = plan(composition)
        self._bound: Bound = {}
        self._laid: Bound = {}  # the same in the dtype and on the device last met
        self._bound_to: Rows | None = None
        self.needs_call = _needs_call(composition)
        gate = composition.gate
        self.reads_ahead = gate is not None and any(unit.layer <= gate.layer for unit in units)
        self._strengths = Strengths(self, not self.needs_call, calls or _Unseen())
        self.patches = patches(units, self._strengths)
        if not self.needs_call:
            self._bind(Rows())

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers where something is read or written."""
        gate = self.composition.gate
        return tuple(sorted({*self.steps, *([gate.layer] if gate else [])}))

    def check(self, composition: Composition) -> None:
        """Refuse coefficients that the model's dtype cannot hold where weights are displaced."""
        bounds.check(composition, self._held)

    def check_rows(self, prompts: int) -> None:
        """Refuse a call of another number of prompts than there are coefficient rows."""
        rows = self.composition.coefficients.shape[0]
        if self.composition.per_row and rows != prompts:
            raise RowsError(
                "coefficient rows and prompts differ in number",
                found=f"{rows} rows for {prompts} prompts",
                expected="one row per prompt of the call",
                do="give one row per prompt, or one setting for all of them",
            )

    def update(self, composition: Composition) -> None:
        """Take other coefficients of the same vectors; if that fails, all is as before.

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
        """Yield the bound tensors of one setting for everything, and what they are to hold."""
        if self.needs_call:
            return
        fresh = self._prepared(composition, Rows())
        for bound in (self._bound, self._laid):
            for layer, steps in bound.items():
                for held, new in zip(steps, fresh[layer], strict=True):
                    yield from zip(held, new, strict=True)

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
                raise Enough
        if self in call.waiting:
            return h
        if layer not in self.steps:
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

    def _bind(self, rows: Rows) -> None:
        """Prepare every step's tensors for the rows of a call."""
        bound = self._prepared(self.composition, rows)
        self._laid = {layer: list(steps) for layer, steps in bound.items()}
        self._bound, self._bound_to = bound, rows

    @torch.inference_mode(False)  # what is bound outlives the call
    def _prepared(self, composition: Composition, rows: Rows) -> Bound:
        c = rows.coefficients(composition)
        return {
            layer: [
                step.operator.prepare(step.V, c[:, list(step.columns)].to(step.V.dtype))
                for step in steps
            ]
            for layer, steps in self.steps.items()
        }


def _needs_call(composition: Composition) -> bool:
    everywhere = all(part.scope.everything for part in composition.parts.values())
    return composition.per_row or composition.gate is not None or not everywhere


class _Unseen:
    """No call is known: for a composition without weight sites."""

    call: Call | None = None

    def note_checkpoint(self) -> None:
        """Nothing is noted."""
