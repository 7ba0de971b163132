"""The output of a decoder block: a hidden state, or a tuple that starts with it."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from steer.errors import ArchitectureError


def block_output(out: Any) -> Float[Tensor, "batch pos d_model"]:
    """Return the hidden state in the output of a decoder block.

    Args:
        out: A tensor, or a tuple or list that starts with one.

    Raises:
        ArchitectureError: It is something else.
    """
    if isinstance(out, Tensor):
        return out
    if isinstance(out, tuple | list) and out and isinstance(out[0], Tensor):
        return out[0]
    entries = f" of {[type(x).__name__ for x in out]}" if isinstance(out, tuple | list) else ""
    raise ArchitectureError(
        "a decoder block does not return a hidden state",
        found=f"{type(out).__name__}{entries}",
        expected="a tensor [batch, pos, d_model], or a tuple or list that starts with one",
        do="name the list of decoder blocks by hand: find_architecture(model, blocks='…')",
    )


def replace_output(out: Any, h: Float[Tensor, "batch pos d_model"]) -> Any:
    """Return the output of a decoder block with another hidden state.

    Args:
        out: The block's output; it is not changed.
        h: The new hidden state, in residual units.

    Returns:
        A value of the type of `out`, with its other entries.

    Raises:
        ArchitectureError: `out` is neither a tensor nor a tuple or list that starts with one.
    """
    if block_output(out) is out:
        return h
    rest = [h, *out[1:]]
    return out._make(rest) if hasattr(out, "_make") else type(out)(rest)
