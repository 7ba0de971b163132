"""Which numbers are far out, so that they do not decide the scale of a picture."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_REACH = 3.0  # interquartile ranges
_STRETCH = 3.0  # ranges of the others, on one side


def near(values: Float[Tensor, " pos"], centre: float = 0.0) -> Bool[Tensor, " pos"]:
    """Return which numbers are not far out.

    The first token of a text often has a stream a hundred times as long as the others' (an
    attention sink). Far out is what lies more than three interquartile ranges beyond the quartiles,
    which do not see it as long as fewer than a quarter of the numbers are so, and would besides
    stretch the range of the others, with the centre, more than threefold beyond its end.
    """
    finite = values.isfinite()
    if not bool(finite.any()):
        return finite
    low, high = torch.quantile(values[finite], values.new_tensor([0.25, 0.75]))
    held = _between(values, low, high, _REACH * (high - low)) & finite
    if not float(high - low) > 0:
        return finite
    low, high = values[held].min().clamp(max=centre), values[held].max().clamp(min=centre)
    return _between(values, low, high, _STRETCH * (high - low)) & finite


def _between(values: Tensor, low: Tensor, high: Tensor, reach: Tensor) -> Tensor:
    return (values >= low - reach) & (values <= high + reach)
