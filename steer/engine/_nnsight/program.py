"""From compositions to plain edits: tensors, and functions that need torch alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steer.algebra import Composition, Scope, Weight
from steer.engine._base import Batch
from steer.engine._nnsight.body import Edit
from steer.engine._steering import Step, plan
from steer.errors import CapabilityError, RowsError, ScopeError

_END = 2**62


@dataclass(frozen=True, eq=False, slots=True)
class Setting:
    """A composition with the coefficients of each prompt of one call."""

    composition: Composition  # the composition
    # `[prompt domain]`, dimensionless; one row if all prompts have the same
    c: Float[Tensor, "prompt domain"]


def refuse(composition: Composition) -> None:
    """Refuse what cannot be done in a trace."""
    marked = [str(p.scope) for p in composition.parts.values() if p.scope.marker is not None]
    if marked:
        raise CapabilityError(
            "the nnsight engine does not look for markers",
            found=f"the scope {marked[0]!r}",
            expected="all, prompt, response or last_prompt, with a range or without",
            do="name one of these, or use steer.Model, whose engine finds markers",
        )
    sites = [str(site) for site in composition.sites if isinstance(site, Weight)]
    if sites:
        raise CapabilityError(
            "the nnsight engine does not displace weights",
            found=f"{len(sites)} weight site(s), the first {sites[0]}",
            expected="residual sites alone",
            do="steer with vector.residual, or use steer.Model, whose engine takes both",
        )


def rows_of(composition: Composition, batch: Batch) -> Float[Tensor, "prompt domain"]:
    """Return the coefficients of the prompts of a batch."""
    c = composition.coefficients
    if not composition.per_row:
        return c
    prompts = batch.total if batch.total is not None else len(batch.ids)
    if c.shape[0] != prompts:
        raise RowsError(
            "coefficient rows and prompts differ in number",
            found=f"{c.shape[0]} rows for {prompts} prompts",
            expected="one row per prompt of the call",
            do="give one row per prompt, or one setting for all of them",
        )
    return c if batch.rows is None else c[list(batch.rows)]


def edits_of(
    settings: Sequence[Setting],
    lengths: Int[Tensor, " prompt"] | None,
    *,
    below: int | None = None,
    remote: bool = False,
) -> dict[int, list[Edit]]:
    """Return what several compositions do at each layer, in the order in which they do it."""
    found: dict[int, list[Edit]] = {}
    for setting in settings:
        for layer, steps in plan(setting.composition).items():
            if below is None or layer < below:
                made = [_edit(step, setting.c, lengths, remote) for step in steps]
                found.setdefault(layer, []).extend(made)
    return found


def _edit(step: Step, c: Tensor, lengths: Tensor | None, remote: bool) -> Edit:
    V = step.V
    prepared = step.operator.prepare(V, c[:, list(step.columns)].to(V.dtype))
    apply: Any = step.operator.apply
    if isinstance(apply, FunctionType):
        apply = _plain(apply)
    elif remote:
        raise CapabilityError(
            f"the operator {step.operator.name!r} cannot be sent to a server",
            found=type(apply).__name__,
            expected="an `apply` that is a plain function of torch alone",
            do="write it as `def apply(h, prepared): …`, or run the model on this machine",
        )
    low, high = interval(step.scope, lengths)
    return apply, prepared, low, high


def _plain(function: FunctionType) -> FunctionType:
    """Return a copy that is pickled by its source, without the types that it names."""
    copy = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def interval(
    scope: Scope, lengths: Int[Tensor, " prompt"] | None
) -> tuple[Int[Tensor, " prompt"], Int[Tensor, " prompt"]] | tuple[None, None]:
    """Return the first position of each prompt that a scope means, and the first one after it."""
    if scope.everything:
        return None, None
    stop = torch.tensor([_END if scope.stop is None else scope.stop])
    start = torch.tensor([scope.start])
    if scope.part == "all":
        return start, stop
    if lengths is None:
        raise ScopeError(
            f"the scope {str(scope)!r} needs to know where the prompt ends",
            found="no prompt lengths",
            expected="the number of prompt tokens of each row",
            do="pass prompt_lengths=[…], or use the scope 'all'",
        )
    if scope.part == "prompt":
        return start.expand_as(lengths), torch.minimum(stop, lengths)
    if scope.part == "response":
        return torch.maximum(start, lengths), stop.expand_as(lengths)
    return torch.maximum(start, lengths - 1), torch.minimum(stop, lengths)
