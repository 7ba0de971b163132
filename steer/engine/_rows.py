"""Which coefficients the rows of a call have."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Composition
from steer.engine._call import Call, Part
from steer.errors import ScopeError


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """What the coefficients of a call's rows depend on, the composition apart."""

    expand: int = 1  # rows per prompt: beams or sampled copies
    weights: Tensor | None = None  # `[batch domain]`, what a gate decided for the rows
    part: Part | None = None  # which rows of a larger call these are

    @classmethod
    def of(cls, call: Call, steering: object) -> "Rows":
        """Return what a call says of the rows of one steering."""
        return cls(call.expand, call.gates.get(steering), call.part)

    def same(self, other: "Rows | None") -> bool:
        """Tell whether another call's rows have the same coefficients."""
        return (
            other is not None
            and self.expand == other.expand
            and self.weights is other.weights
            and self.part is other.part
        )

    @torch.inference_mode(False)  # what is bound outlives the call
    def coefficients(self, composition: Composition) -> Float[Tensor, "batch domain"]:
        """Return the coefficients of each row; one row where all rows have the same."""
        c = composition.coefficients
        if composition.per_row:
            c = c if self.part is None else c[list(self.part.rows)]
            c = c.repeat_interleave(self.expand, dim=0) if self.expand != 1 else c
        return c if self.weights is None else c * self.weights


def unseen() -> ScopeError:
    """Return the error for modules that run outside a call that was seen."""
    return ScopeError(
        "the steered blocks ran outside the model's own forward",
        found="a call of the inner text model, below the top-level forward, or checkpointed "
        "activations that a backward pass computes again",
        expected="a call of the model itself: rows, scopes and gates are read there",
        do="call the causal language model, or steer with scope 'all' and one setting",
    )
