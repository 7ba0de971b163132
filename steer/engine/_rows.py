"""The coefficients of the rows and tokens of a call."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Composition
from steer.engine._call import BatchSlice, Call
from steer.errors import RowsError, ScopeError


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """The properties of a call's rows on which their coefficients depend."""

    expand: int = 1  # rows per prompt: beams or sampled copies
    weights: Tensor | None = None  # `[batch domain]`, what a gate decided for the rows
    batch_slice: BatchSlice | None = None  # the subset of a larger call, if it is one

    @classmethod
    def of(cls, call: Call, steering: object) -> "Rows":
        """Return the rows of a call for one steering."""
        return cls(call.expand, call.gates.get(steering), call.batch_slice)

    def same(self, other: "Rows | None") -> bool:
        """Return whether another call's rows have the same coefficients."""
        return (
            other is not None
            and self.expand == other.expand
            and self.weights is other.weights
            and self.batch_slice is other.batch_slice
        )

    @torch.inference_mode(False)  # what is bound outlives the call
    def coefficients(self, composition: Composition) -> Float[Tensor, "batch domain"]:
        """Return the coefficients of each row; one row where all rows have the same."""
        c = composition.coefficients
        if composition.per_row:
            c = c if self.batch_slice is None else c[list(self.batch_slice.rows)]
            c = c.repeat_interleave(self.expand, dim=0) if self.expand != 1 else c
        return c if self.weights is None else c * self.weights


def check_rows(composition: Composition, prompts: int) -> None:
    """Refuse a call with another number of prompts than there are coefficient rows."""
    rows = composition.coefficients.shape[0]
    if composition.per_row and rows != prompts:
        raise RowsError(
            "coefficient rows and prompts differ in number",
            found=f"{rows} rows for {prompts} prompts",
            expected="one row per prompt of the call",
            do="give one row per prompt, or one setting for all of them",
        )


def unseen() -> ScopeError:
    """Return the error for modules that run outside a watched call."""
    return ScopeError(
        "the steered blocks ran outside the model's own forward",
        found="a call of the inner text model, below the top-level forward, or checkpointed "
        "activations that a backward pass computes again",
        expected="a call of the model itself: rows, scopes and gates are read there",
        do="call the causal language model, or steer with scope 'all' and one setting",
    )
