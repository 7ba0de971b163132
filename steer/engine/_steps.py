"""The residual steps of a composition: the operators that act on the stream at each layer."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steer.algebra import Composition, Operator, Scope, Weight, get_operator
from steer.algebra._operator import Prepared, cast

Hidden = Float[Tensor, "batch pos d_model"]


@dataclass(frozen=True, eq=False, slots=True)
class Step:
    """One operator at one site, with the directions of the domains that use it there."""

    operator: Operator
    scope: Scope
    columns: tuple[int, ...]  # of the directions' domains in the coefficients
    V: Float[Tensor, "domain d_model"]  # in residual units, at least float32, on the CPU

    def prepare(self, c: Float[Tensor, "row domain"]) -> Prepared:
        """Return the operator's tensors for coefficients of the whole composition."""
        return self.operator.prepare(self.V, c[:, list(self.columns)].to(self.V.dtype))


def steps_of(composition: Composition) -> Mapping[int, tuple[Step, ...]]:
    """Return the steps at each layer (-1: the embedding output) in the order in which they run.

    Domains that share operator and scope at a layer are one step.
    """
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


def scopes_of(composition: Composition) -> tuple[Scope, ...]:
    """Return the scopes of a composition's residual sites, each once."""
    steps = [step for at in steps_of(composition).values() for step in at]
    return tuple(dict.fromkeys(step.scope for step in steps))


def scope_tokens(scope: Scope, length: int, prompt_length: int) -> Bool[Tensor, " pos"]:
    """Return which tokens of one text a scope means."""
    return scope.mask(torch.arange(length)[None], torch.tensor([prompt_length]))[0]


class BoundSteps:
    """The steps of a composition, bound to rows whose scopes are known, one setting per row."""

    def __init__(
        self,
        composition: Composition,
        settings: Float[Tensor, "setting domain"],
        members: Mapping[Scope, Bool[Tensor, " pos"]],
    ) -> None:
        self._steps = steps_of(composition)
        self._members = members
        self._prepared = {
            layer: [step.prepare(settings) for step in steps]
            for layer, steps in self._steps.items()
        }

    def apply(self, layer: int, h: Hidden) -> Hidden:
        """Return the residual stream, one batch row per setting or one for all, after a layer."""
        for step, prepared in zip(self._steps[layer], self._prepared[layer], strict=True):
            members = self._members[step.scope]
            if not bool(members.any()):
                continue
            changed = step.operator.apply(h, cast(prepared, h))
            if bool(members.all()):
                h = changed
            else:
                h = torch.where(members.to(h.device)[None, :, None], changed, h)
        return h
