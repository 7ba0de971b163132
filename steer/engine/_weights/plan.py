"""The weight sites of a composition that hooks displace, those that are merged, and why."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from steer.algebra import Composition, LowRank, Term, Weight, tensors
from steer.engine._base import WeightMode
from steer.engine._patches import unwrapped
from steer.engine._weights.forms import Form, form_of
from steer.engine._weights.uses import Uses, owners, uses_of
from steer.errors import AlgebraError, CapabilityError, CompositionError
from steer.network import Architecture

_WORKING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_ADVICE = "reduce it with vector.truncate(rank), or merge one setting: weights='merge'"
_LINEAR = ("linear", "transposed")
Held = tuple[tuple[int, torch.dtype], ...]


@dataclass(frozen=True, eq=False, slots=True)
class WeightTerm:
    """One domain's displacement of one parameter."""

    column: int  # of the domain in the coefficients
    name: str  # of the parameter
    term: Term


@dataclass(frozen=True, eq=False, slots=True)
class HookSite:
    """The displacements of one parameter in one of the modules that use it."""

    module: nn.Module
    leaf: str  # the parameter's own name there
    form: Form
    layer: int  # the block that the module runs in: -1 before the first
    reader: int  # the same for modules that read the very same tensor
    position: int  # the dimension of its output that counts tokens
    entries: tuple[WeightTerm, ...]

    @property
    def linear(self) -> bool:
        """Whether the module multiplies its input by the parameter."""
        return self.form in _LINEAR


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """The weight sites of a composition, by how they are steered."""

    units: tuple[HookSite, ...] = ()  # by hook, in the order in which their modules run
    merged: tuple[WeightTerm, ...] = ()


def plan(composition: Composition, architecture: Architecture, mode: WeightMode) -> Plan:
    """Return what hooks displace and what is merged; `auto` merges where hooks are not exact."""
    entries = _entries(composition)
    if not entries:
        return Plan()
    reasons = {} if mode == "merge" else _reasons(entries, architecture)
    merged = tuple(e for e in entries if mode == "merge" or e in reasons)
    if reasons and mode == "hook":
        raise _refused("weight sites that cannot be taken by hook", reasons, _ADVICE)
    if merged and (blocked := _blocked(composition, merged)):
        if not reasons:
            raise CapabilityError(
                "merging holds one setting for every row and token",
                found=blocked,
                expected="one setting, scope 'all', no gate",
                do="steer by hook: weights='hook' or 'auto'",
            )
        what = f"weight sites that must be merged, which {blocked} does not allow"
        raise _refused(what, reasons, _ADVICE)
    hooked = [e for e in entries if e not in merged]
    for entry in hooked:  # merging looks at its sums itself
        _check_finite(entry)
    return Plan(tuple(_units(hooked, architecture)), merged)


def _check_finite(entry: WeightTerm) -> None:
    held = [t for t in tensors(entry.term).values() if not t.is_meta]
    if not all(bool(torch.isfinite(t).all()) for t in held):
        raise AlgebraError(
            f"the term at {entry.name} is not finite",
            found="NaN or infinite values",
            expected="finite numbers",
            do="look where they come from: an overflow in float16, a division by zero",
        )


def _entries(composition: Composition) -> list[WeightTerm]:
    return [
        WeightTerm(column, site.name, term)
        for column, part in enumerate(composition.parts.values())
        for site, term in part.vector.terms.items()
        if isinstance(site, Weight)
    ]


def _reasons(entries: Sequence[WeightTerm], architecture: Architecture) -> dict[WeightTerm, str]:
    """Return why entries cannot be taken by hook, for those that cannot."""
    uses, held = uses_of(architecture), owners(unwrapped(architecture.model))
    found = {e: _reason(e, unwrapped(architecture.model), uses, held) for e in entries}
    return {e: reason for e, reason in found.items() if reason is not None}


def _reason(
    entry: WeightTerm, model: nn.Module, uses: Uses, held: dict[str, list[tuple[str, str]]]
) -> str | None:
    name, term = entry.name, entry.term
    if name in uses.outside:
        return f"{name} is used outside its module"
    if len(term.shape) > 2:
        return f"{name} of shape {term.shape} is no matrix: fused experts, convolutions"
    for module_name, leaf in places(name, held):
        form = _form(model, module_name, leaf, term.shape, uses)
        if form is None:
            module = model.get_submodule(module_name)
            if any(p.is_meta for p in module.parameters(recurse=False)):
                return f"{name} is offloaded, and more than a product with it is needed"
            kind = type(module).__name__
            return f"{name}: the output of {kind} is not linear in it, or it did not run"
        if form in _LINEAR and not isinstance(term, LowRank):
            return f"{name} is a dense matrix: {_cost(term.shape)}"
        if form in ("elementwise", "added") and isinstance(term, LowRank):
            return f"{name} has one dimension"
    return None


def places(name: str, held: dict[str, list[tuple[str, str]]]) -> list[tuple[str, str]]:
    """Return the modules that use a parameter, with its own name in each."""
    module, _, leaf = name.rpartition(".")
    return held.get(name, [(module, leaf)])


def _form(
    model: nn.Module, name: str, leaf: str, shape: tuple[int, ...], uses: Uses
) -> Form | None:
    seen = uses.seen.get(name)
    if seen is None:
        return None
    key = (name, leaf)
    if key not in uses.forms:
        uses.forms[key] = form_of(model.get_submodule(name), leaf, shape, seen)
    return cast(Form | None, uses.forms[key])


def _cost(shape: tuple[int, ...]) -> str:
    size = shape[0] * shape[1]
    rank = max(1, min(shape) // 8)
    share = rank * sum(shape) / size
    return (
        f"{shape[0]}×{shape[1]} by hook costs the module's own {size:,} products per token again, "
        f"for each domain; rank {rank} costs {share:.0%} of that"
    )


def _blocked(composition: Composition, merged: Sequence[WeightTerm]) -> str | None:
    """Return the reason why one setting of the merged sites is not enough, or None."""
    if composition.gate is not None:
        return "a gate"
    if composition.per_row:
        return "one setting per row"
    parts = list(composition.parts.values())
    scopes = [str(parts[e.column].scope) for e in merged if not parts[e.column].scope.everything]
    return f"the scope {scopes[0]!r}" if scopes else None


def _refused(what: str, reasons: dict[WeightTerm, str], do: str) -> CapabilityError:
    listed = list(dict.fromkeys(reasons.values()))
    more = f"; and {len(listed) - 3} more" if len(listed) > 3 else ""
    return CapabilityError(
        what,
        found="; ".join(listed[:3]) + more,
        expected="low rank on linear modules and tables, any term on tables, norms and biases",
        do=do,
    )


def _units(entries: Sequence[WeightTerm], architecture: Architecture) -> Iterator[HookSite]:
    model = unwrapped(architecture.model)
    uses, held = uses_of(architecture), owners(model)
    grouped: dict[tuple[str, str], list[WeightTerm]] = {}
    for entry in entries:
        for place in places(entry.name, held):
            grouped.setdefault(place, []).append(entry)
    order = {name: k for k, name in enumerate(uses.seen)}
    for name, leaf in sorted(grouped, key=lambda place: order[place[0]]):
        own, seen = grouped[name, leaf], uses.seen[name]
        form = _form(model, name, leaf, own[0].term.shape, uses)
        if form is not None:
            module = model.get_submodule(name)
            yield HookSite(module, leaf, form, seen.layer, seen.reader, seen.position, tuple(own))


def held_in(units: Sequence[HookSite]) -> Held:
    """Return the columns of the coefficients, each with a dtype in which a module holds it."""
    found = [
        (entry.column, dtype)
        for unit in units
        if (dtype := _working(unit.module)) is not None
        for entry in unit.entries
    ]
    return tuple(dict.fromkeys(found))


def check_held(composition: Composition, columns: Held) -> None:
    """Refuse coefficients that overflow or vanish in the dtype of a module."""
    for column, dtype in columns:
        c = composition.coefficients[:, column]
        rounded = c.to(dtype)
        lost = ~rounded.isfinite() | ((rounded == 0) & (c != 0))
        if bool(lost.any()):
            limits = torch.finfo(dtype)
            name, least = str(dtype).removeprefix("torch."), limits.tiny * limits.eps
            raise CompositionError(
                f"the model's {name} cannot hold a coefficient",
                found=f"{composition.domains[column]}={c[lost][0].item():g}",
                expected=f"0, or a magnitude from {least:.2g} to {limits.max:.6g}",
                do="scale the vector instead, vector * factor, or merge: weights='merge'",
            )


def _working(module: nn.Module) -> torch.dtype | None:
    own = (*module.parameters(), *module.buffers())
    return next((t.dtype for t in own if t.dtype in _WORKING), None)
