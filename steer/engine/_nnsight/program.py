"""Compositions as plain edits: tensors, and functions that need nothing but torch."""

from collections.abc import Sequence
from types import FunctionType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steer.algebra import Composition, Scope, Weight
from steer.engine._base import Batch
from steer.engine._call import check_rows
from steer.engine._nnsight.body import Edit
from steer.engine._steps import Step, steps_of
from steer.errors import CapabilityError, ScopeError

_END = 2**62


# a composition with the coefficients of each prompt of one call, or one row for all
Setting = tuple[Composition, Float[Tensor, "prompt domain"]]


def refuse(composition: Composition) -> None:
    """Refuse weight sites and markers, which a trace cannot steer."""
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


def setting_of(composition: Composition, batch: Batch) -> Setting:
    """Return a composition with the coefficients of the prompts of a batch."""
    check_rows(composition, batch.total if batch.total is not None else len(batch.ids))
    c = composition.coefficients
    part = composition.per_row and batch.rows is not None
    return composition, c[list(batch.rows or ())] if part else c


def edits_of(
    settings: Sequence[Setting],
    lengths: Int[Tensor, " prompt"] | None,
    *,
    below: int | None = None,
    remote: bool = False,
) -> dict[int, list[Edit]]:
    """Return the edits of compositions at each layer, in order; `remote` ones need torch alone."""
    found: dict[int, list[Edit]] = {}
    for composition, c in settings:
        for layer, steps in steps_of(composition).items():
            if below is None or layer < below:
                made = [_edit(step, c, lengths, remote) for step in steps]
                found.setdefault(layer, []).extend(made)
    return found


def _edit(step: Step, c: Tensor, lengths: Tensor | None, remote: bool) -> Edit:
    prepared = step.prepare(c)
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
    """Return a copy without annotations, which is pickled by its source."""
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
    """Return the first position of a scope in each prompt, and the first one after it."""
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
