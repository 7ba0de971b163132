"""The parameters of a model by name, read one at a time from memory or from disk."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from steer.network._checkpoint import Checkpoint
from steer.network._parameters.layout import FLOATS, aliases_of, layout_of

_BESIDE = (*FLOATS, torch.bool, torch.int64, torch.complex64, torch.complex128)  # masks, positions


@dataclass(frozen=True, eq=False, slots=True)
class Parameters:
    """The parameters of a model, or of one without values on the meta device, read on demand."""

    model: nn.Module
    shapes: Mapping[str, tuple[int, ...]]  # tied weights once
    aliases: Mapping[str, str]  # other names of tied weights -> their name in shapes
    buffers: tuple[str, ...]  # floating-point buffers that are saved
    read: Callable[[str], Tensor]  # on the CPU, not to be written to


def parameters_of(model: nn.Module) -> Parameters:
    """Return the parameters of a model in memory."""
    tensors = dict(model.state_dict(keep_vars=True))
    values = tensors | dict(model.named_parameters())
    return _parameters(model, tensors, lambda name: values[name].detach().cpu())


def parameters_in(checkpoint: Checkpoint) -> Parameters:
    """Return the parameters of a checkpoint's model, without loading it."""
    layout = layout_of(checkpoint)
    stored = {n: t for n, t in layout.model.state_dict().items() if n in layout.sources}
    return _parameters(layout.model, stored, lambda name: layout.read(checkpoint, name))


def _parameters(
    model: nn.Module, saved: Mapping[str, Tensor], read: Callable[[str], Tensor]
) -> Parameters:
    named, aliases = dict(model.named_parameters()), aliases_of(model)
    buffers = [name for name, value in saved.items() if value.is_floating_point()]
    return Parameters(
        model=model,
        shapes=MappingProxyType({name: tuple(p.shape) for name, p in named.items()}),
        aliases=MappingProxyType(aliases),
        buffers=tuple(name for name in buffers if name not in named and name not in aliases),
        read=read,
    )


def not_plain(model: nn.Module) -> Iterator[str]:
    """Yield the weights that are not plain floating-point tensors, one clause each.

    Quantisation libraries keep their codes in parameters, tensor subclasses, buffers, attributes or
    objects of their own; all of these are recognised without knowing the library.
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
