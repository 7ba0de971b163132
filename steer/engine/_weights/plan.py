"""The weight sites of a composition that hooks displace, those that are merged, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steer.algebra import Composition, LowRank, Term, Weight, tensors
from steer.engine._base import WeightMode
from steer.engine._patches import unwrapped
from steer.engine._weights.forms import form_of
from steer.engine._weights.uses import Form, Uses, owners, uses_of
from steer.errors import AlgebraError, CapabilityError, CompositionError
from steer.network import Architecture
from steer.network._parameters.layout import FLOATS

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
    entries = [
        WeightTerm(column, site.name, term)
        for column, part in enumerate(composition.parts.values())
        for site, term in part.vector.terms.items()
        if isinstance(site, Weight)
    ]
    if not entries:
        return Plan()
    merged, units, reasons = entries, list[HookSite](), list[str]()
    if mode != "merge":
        merged, units, reasons = _by_hook(entries, architecture)
    if reasons and mode == "hook":
        raise _refused("weight sites that cannot be taken by hook", reasons)
    if merged and (blocked := _blocked(composition, merged)):
        if reasons:
            what = f"weight sites that must be merged, which {blocked} does not allow"
            raise _refused(what, reasons)
        raise CapabilityError(
            "merging holds one setting for every row and token",
            found=blocked,
            expected="one setting, scope 'all', no gate",
            do="steer by hook: weights='hook' or 'auto'",
        )
    return Plan(tuple(units), tuple(merged))


def _by_hook(
    entries: Sequence[WeightTerm], architecture: Architecture
) -> tuple[list[WeightTerm], list[HookSite], list[str]]:
    """Return the terms that hooks cannot displace, the sites of the others, and the reasons."""
    model, uses = unwrapped(architecture.model), uses_of(architecture)
    held, merged, reasons = owners(model), list[WeightTerm](), list[str]()
    sites: dict[tuple[str, str], tuple[Form, list[WeightTerm]]] = {}
    for entry in entries:
        owner, _, own_name = entry.name.rpartition(".")
        found = _forms(entry, held.get(entry.name, [(owner, own_name)]), model, uses)
        if isinstance(found, str):
            merged.append(entry)
            reasons.append(found)
            continue
        _check_finite(entry)  # merging looks at its sums itself
        for place, form in found.items():
            sites.setdefault(place, (form, []))[1].append(entry)
    units = []
    order = {name: k for k, name in enumerate(uses.seen)}
    for (name, leaf), (form, own) in sorted(sites.items(), key=lambda site: order[site[0][0]]):
        module, seen = model.get_submodule(name), uses.seen[name]
        at = seen.layer, seen.reader, seen.position
        units.append(HookSite(module, leaf, form, *at, tuple(own)))
    return merged, units, reasons


def _check_finite(entry: WeightTerm) -> None:
    held = [t for t in tensors(entry.term).values() if not t.is_meta]
    if not all(bool(torch.isfinite(t).all()) for t in held):
        raise AlgebraError(
            f"the term at {entry.name} is not finite",
            found="NaN or infinite values",
            expected="finite numbers",
            do="look where they come from: an overflow in float16, a division by zero",
        )


def _forms(
    entry: WeightTerm, places: Sequence[tuple[str, str]], model: nn.Module, uses: Uses
) -> dict[tuple[str, str], Form] | str:
    """Return the form of a parameter in each module, or why it cannot be taken by hook."""
    name, term, forms = entry.name, entry.term, {}
    if name in uses.outside:
        return f"{name} is used outside its module"
    if len(term.shape) > 2:
        return f"{name} of shape {term.shape} is no matrix: fused experts, convolutions"
    for place in places:
        module = model.get_submodule(place[0])
        if place not in uses.forms and (seen := uses.seen.get(place[0])) is not None:
            uses.forms[place] = form_of(module, place[1], term.shape, seen)
        form = uses.forms.get(place)
        if form is None:
            if any(p.is_meta for p in module.parameters(recurse=False)):
                return f"{name} is offloaded, and more than a product with it is needed"
            kind = type(module).__name__
            return f"{name}: the output of {kind} is not linear in it, or it did not run"
        if form in _LINEAR and not isinstance(term, LowRank):
            return f"{name} is a dense matrix: {_cost(term.shape)}"
        if form in ("elementwise", "added") and isinstance(term, LowRank):
            return f"{name} has one dimension"
        forms[place] = form
    return forms


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


def _refused(what: str, reasons: Sequence[str]) -> CapabilityError:
    listed = list(dict.fromkeys(reasons))
    more = f"; and {len(listed) - 3} more" if len(listed) > 3 else ""
    return CapabilityError(
        what,
        found="; ".join(listed[:3]) + more,
        expected="low rank on linear modules and tables, any term on tables, norms and biases",
        do="reduce it with vector.truncate(rank), or merge one setting: weights='merge'",
    )


def held_in(units: Sequence[HookSite]) -> Held:
    """Return the columns of the coefficients, each with a dtype in which a module holds it."""
    found = [
        (entry.column, like.dtype)
        for unit in units
        if (like := working(unit.module)) is not None
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


def working(module: nn.Module) -> Tensor | None:
    """Return a tensor with the dtype and device in which a module works, if it has one."""
    own = (*module.parameters(), *module.buffers())
    return next((t for t in own if t.dtype in FLOATS), None)
