"""Coefficients of rows and tokens, laid along the dimensions of what a module reads or gives."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from steer.engine._call import Call
from steer.errors import CapabilityError


def spread(
    c: Float[Tensor, "batch pos rank"], shape: Sequence[int], call: Call | None, position: int = 1
) -> Tensor:
    """Return coefficients that broadcast against a tensor of the given leading dimensions."""
    rows, places, width = c.shape
    if rows == places == 1 or call is None:
        return c.reshape([1] * len(shape) + [width])
    if shape[0] == call.rows and len(shape) > 1:
        if places == 1:
            return c.reshape([rows] + [1] * (len(shape) - 1) + [width])
        if (kept := call.kept) is not None and shape[position] != call.length:
            c = c[:, kept]
        if shape[position] == c.shape[1]:
            between, after = [1] * (position - 1), [1] * (len(shape) - position - 1)
            return c.reshape([rows, *between, c.shape[1], *after, width])
    if shape[0] == call.rows * call.length:
        flat = c.expand(call.rows, call.length, width).reshape(-1, width)
        return flat.reshape([flat.shape[0]] + [1] * (len(shape) - 1) + [width])
    if len(shape) == 2 and shape[0] == 1 and position == 1:
        return c  # one row for all, as positional embeddings are: it becomes one per row
    raise CapabilityError(
        "a module's input does not tell which rows and tokens it holds",
        found=f"shape {tuple(shape)} in a call of {call.rows} rows of {call.length} tokens",
        expected="[batch, pos, …], or both in one dimension",
        do="steer with one setting for all rows and scope 'all', or merge: weights='merge'",
    )
