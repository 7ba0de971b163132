"""The residual steps of a composition: the operators that act on the stream at each layer."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steer.algebra import Composition, Operator, Scope, Weight, get_operator
from steer.algebra._operator import Prepared, cast

Hidden = Float[Tensor, "batch pos d_model"]
TokenMask = Bool[Tensor, "batch pos one"] | Literal[False] | None  # None: all tokens, False: none


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


Steps = Mapping[int, tuple[Step, ...]]


def steps_of(composition: Composition) -> Steps:
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


def scopes_of(steps: Steps) -> tuple[Scope, ...]:
    """Return the scopes of residual steps, each once."""
    return tuple(dict.fromkeys(step.scope for at in steps.values() for step in at))


def placed(composition: Composition) -> bool:
    """Return whether a scope must know where tokens stand."""
    return any(not part.scope.everything for part in composition.parts.values())


def scope_tokens(scope: Scope, length: int, prompt_length: int) -> Bool[Tensor, " pos"]:
    """Return which tokens of one text a scope means."""
    return scope.mask(torch.arange(length)[None], torch.tensor([prompt_length]))[0]


class BoundSteps:
    """Residual steps with the tensors of one set of coefficients."""

    @torch.inference_mode(False)  # they outlive the call
    def __init__(
        self,
        steps: Steps,
        c: Float[Tensor, "row domain"],
        likes: Mapping[int, Tensor] = MappingProxyType({}),
    ) -> None:
        self._steps = steps
        self._exact = {layer: [step.prepare(c) for step in own] for layer, own in steps.items()}
        # the same in the dtype and on the device last met, at first those of a layer's weights
        self._met = {
            layer: [cast(p, likes[layer]) if layer in likes else p for p in own]
            for layer, own in self._exact.items()
        }

    def apply(self, layer: int, h: Hidden, tokens: Callable[[Scope], TokenMask]) -> Hidden:
        """Return the residual stream after the steps of a layer, at the tokens of each scope."""
        met = self._met[layer]
        for k, step in enumerate(self._steps[layer]):
            mask = tokens(step.scope)
            if mask is False:
                continue
            prepared = met[k]
            if prepared[0].dtype != h.dtype or prepared[0].device != h.device:
                with torch.inference_mode(False):
                    prepared = met[k] = cast(self._exact[layer][k], h)
            changed = step.operator.apply(h, prepared)
            h = changed if mask is None else torch.where(mask, changed, h)
        return h

    def writes(self, c: Float[Tensor, "row domain"]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the tensors in use, and their values at other coefficients."""
        fresh = BoundSteps(self._steps, c)._exact
        for bound in (self._exact, self._met):
            for layer, steps in bound.items():
                for held, new in zip(steps, fresh[layer], strict=True):
                    yield from zip(held, new, strict=True)
