"""What a composition does to the moved rows of a pack, a batch row for each setting."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steer.algebra import Composition, Scope
from steer.algebra._operator import cast
from steer.engine._steering import Step, plan

Membership = Mapping[Scope, Bool[Tensor, " pos"]]


class Injection:
    """The steps of a composition at each layer, bound to some settings and some rows."""

    def __init__(
        self,
        composition: Composition,
        settings: Float[Tensor, "setting domain"],
        members: Membership,
    ) -> None:
        self._steps = plan(composition)
        self._members = members
        self._prepared = {
            layer: [_prepared(step, settings) for step in steps]
            for layer, steps in self._steps.items()
        }

    def apply(self, layer: int, h: Float[Tensor, "batch pos d_model"]) -> Tensor:
        """Return the residual stream after the steps at a layer."""
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


def _prepared(step: Step, settings: Float[Tensor, "setting domain"]) -> tuple[Tensor, ...]:
    c = settings[:, list(step.columns)].to(step.V.dtype)
    return step.operator.prepare(step.V, c)


def scopes(composition: Composition) -> tuple[Scope, ...]:
    """Return the scopes at work at a composition's residual sites, each once."""
    steps = [step for at in plan(composition).values() for step in at]
    return tuple(dict.fromkeys(step.scope for step in steps))


def members(scope: Scope, positions: Sequence[int], prompt_length: int) -> Bool[Tensor, " pos"]:
    """Return which tokens of one sequence a scope means."""
    return scope.mask(torch.tensor([positions]), torch.tensor([prompt_length]))[0]
