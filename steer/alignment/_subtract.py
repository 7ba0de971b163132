"""One tensor minus another, in float32."""

import torch
from torch import Tensor

from steer.algebra import Dense
from steer.errors import AlignmentError

_BLOCK = 2**17  # elements converted at a time: small, so that freed memory is used again


def subtract(name: str, aligned: Tensor, base: Tensor) -> Dense | None:
    """Return aligned − base in float32, or None where they are equal.

    The subtraction is exact for values of 8 or 11 bits (bfloat16, float16) whose exponents are at
    most 16 or 13 apart, as those of a weight before and after training are, and for float32 values
    within a factor of two of each other. Elsewhere the result is the float32 nearest to the exact
    difference, off by at most 2⁻²⁴ of it. Float64 is subtracted in float64 and rounded once.

    Args:
        name: The parameter's name, for messages.
        aligned: Its values in one model.
        base: Its values in the other, of the same shape.

    Raises:
        AlignmentError: A value or a difference is NaN or infinite.
    """
    if aligned.numel() == 0:
        return None
    difference = torch.empty(aligned.shape, dtype=torch.float32)
    wide = torch.float64 if torch.float64 in (aligned.dtype, base.dtype) else torch.float32
    parts = (tensor.reshape(-1).split(_BLOCK) for tensor in (difference, aligned, base))
    for out, left, right in zip(*parts, strict=True):
        out.copy_(left.to(wide) - right.to(wide))
    low, high = (float(end) for end in torch.aminmax(difference))
    if not (-torch.inf < low and high < torch.inf):
        bad = int((~difference.isfinite()).sum())
        raise AlignmentError(
            f"the difference of {name} is not finite",
            found=f"{bad} of {difference.numel()} values are NaN or infinite",
            expected="finite weights in both models",
            do="look at both checkpoints: a training run that diverged leaves such values",
        )
    return Dense(difference) if low < 0.0 or high > 0.0 else None
