"""The parameters of a model by their own names, one at a time, from memory or from disk."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor, nn

from steer.network._checkpoint import Checkpoint
from steer.network._parameters.layout import aliases_of, layout_of


@dataclass(frozen=True, eq=False, slots=True)
class Parameters:
    """What `named_parameters()` of a model gives, read when asked for.

    Args:
        model: The model, or its skeleton on the meta device.
        shapes: Shape of each parameter by its name; tied weights once, under the name that
            `named_parameters()` gives.
        aliases: Further names of tied weights, and the name that `shapes` has for each.
        buffers: Names of floating-point buffers that are saved with the model.
        read: Name of a parameter or buffer → its values, on the CPU, not to be written to.
    """

    model: nn.Module
    shapes: Mapping[str, tuple[int, ...]]
    aliases: Mapping[str, str]
    buffers: tuple[str, ...]
    read: Callable[[str], Tensor]


def parameters_of(model: nn.Module) -> Parameters:
    """Return the parameters of a model in memory.

    Args:
        model: The model.
    """
    tensors = dict(model.state_dict(keep_vars=True))
    named = dict(model.named_parameters())
    buffers = [
        name
        for name, value in tensors.items()
        if not isinstance(value, nn.Parameter) and value.is_floating_point()
    ]
    values = named | {name: tensors[name] for name in buffers}
    return Parameters(
        model=model,
        shapes=MappingProxyType({name: tuple(p.shape) for name, p in named.items()}),
        aliases=MappingProxyType(aliases_of(model)),
        buffers=tuple(buffers),
        read=lambda name: values[name].detach().cpu(),
    )


def parameters_in(checkpoint: Checkpoint) -> Parameters:
    """Return the parameters that a checkpoint's model would have, without loading it.

    Args:
        checkpoint: The checkpoint.

    Raises:
        CheckpointError: The model's class is not known, weights are quantised, or tensors are
            missing, unknown or of another shape than the configuration says.
    """
    layout = layout_of(checkpoint)
    named = dict(layout.model.named_parameters())
    buffers = [
        name
        for name, value in layout.model.state_dict().items()
        if name in layout.sources and name not in named and value.is_floating_point()
    ]
    aliases = aliases_of(layout.model)
    return Parameters(
        model=layout.model,
        shapes=MappingProxyType({name: tuple(p.shape) for name, p in named.items()}),
        aliases=MappingProxyType(aliases),
        buffers=tuple(name for name in buffers if name not in aliases),
        read=lambda name: layout.read(checkpoint, name),
    )
