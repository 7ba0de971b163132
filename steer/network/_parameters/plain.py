"""Whether the weights of a model are plain numbers: a quantisation library makes them others."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from steer.network._parameters.layout import FLOATS

_BESIDE = (*FLOATS, torch.bool, torch.int64, torch.complex64, torch.complex128)  # masks, positions


def not_plain(model: nn.Module) -> Iterator[str]:
    """Yield what of a model's weights is no plain floating-point tensor, one clause each.

    A library keeps codes in parameters, in a subclass of tensors, in matrices that are buffers or
    attributes, or in an object of its own; none is known by its name here.
    """
    for name, parameter in model.named_parameters():
        yield from _faults(name, parameter.data, FLOATS)
    for name, module in model.named_modules():
        held = {**vars(module), **module._buffers}
        for key, value in held.items():
            if isinstance(value, Tensor) and (value.ndim > 1 or type(value) is not Tensor):
                yield from _faults(f"{name}.{key}".removeprefix("."), value, _BESIDE)
    for name, value in model.state_dict().items():
        if value is not None and not isinstance(value, Tensor):
            yield f"{name} is quantised ({type(value).__name__}, no tensor)"


def _faults(name: str, value: Tensor, dtypes: Sequence[torch.dtype]) -> Iterator[str]:
    if type(value) is not Tensor:
        yield f"{name} is quantised or distributed ({type(value).__name__})"
    elif value.layout != torch.strided:
        yield f"{name} is sparse ({value.layout})"
    elif value.dtype not in dtypes:
        yield f"{name} is quantised ({value.dtype})"
