"""Which parameters can be written in place, and whether they share memory."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from steer.errors import MergeError
from steer.merge._expansion import BITS


def check_writable(
    model: nn.Module, parameters: Mapping[str, Tensor], names: Sequence[str]
) -> None:
    """Refuse parameters that do not exist or whose numbers cannot be written.

    Args:
        model: The model, for the other names of tied parameters.
        parameters: Its parameters by name.
        names: Those to be merged into.

    Raises:
        MergeError: One of them cannot be merged into.
    """
    for name in names:
        if name not in parameters:
            raise _unknown(model, name)
        parameter = parameters[name]
        found = None
        if parameter.is_meta:
            found = "no data: it is offloaded, or on the meta device"
        elif parameter.dtype not in BITS or type(parameter.data) is not Tensor:
            found = f"{type(parameter.data).__name__} of {parameter.dtype}"
        if found is not None:
            raise MergeError(
                f"{name} cannot be merged into",
                found=found,
                expected="a plain tensor of bfloat16, float16, float32 or float64",
                do="load the model in memory and unquantised, or steer without merging",
            )


def _unknown(model: nn.Module, name: str) -> MergeError:
    every = dict(model.named_parameters(remove_duplicate=False))
    if name in every:
        tied = next(other for other, p in model.named_parameters() if p is every[name])
        return MergeError(
            f"{name} is tied to {tied}",
            found=f"a delta for {name}",
            expected="tied weights once, under the first of their names",
            do=f"put the delta at {tied}; it acts wherever the parameter is used",
        )
    return MergeError(
        f"the model has no parameter {name}",
        found=f"{len(every)} parameters, such as {', '.join(list(every)[:3])}",
        expected="a name from model.named_parameters()",
        do="check that the vector was made for this model",
    )


def check_disjoint(parameters: Mapping[str, Tensor]) -> None:
    """Refuse parameters that share memory: what is written to one would change the other.

    Args:
        parameters: The parameters by name.

    Raises:
        MergeError: Two of them share elements, or one holds an element twice.
    """
    groups: dict[tuple[str, int], list[str]] = {}
    for name, p in parameters.items():
        if p.numel():
            key = (str(p.device), p.untyped_storage().data_ptr())
            groups.setdefault(key, []).append(name)
    for names in groups.values():
        own = sorted(names, key=lambda name: parameters[name].storage_offset())
        apart = all(_end(parameters[a]) <= _start(parameters[b]) for a, b in pairwise(own))
        if not apart or not all(parameters[name].is_contiguous() for name in own):
            _check_elements(parameters, own)


def _start(p: Tensor) -> int:
    return int(p.storage_offset()) * p.element_size()


def _end(p: Tensor) -> int:
    last = sum((size - 1) * stride for size, stride in zip(p.shape, p.stride(), strict=True))
    return (int(p.storage_offset()) + last + 1) * p.element_size()


def _check_elements(parameters: Mapping[str, Tensor], names: Sequence[str]) -> None:
    """Mark each element of the storage that the parameters hold; none may be marked twice."""
    first = parameters[names[0]]
    taken = torch.zeros(first.untyped_storage().nbytes() // first.element_size(), dtype=torch.bool)
    marked = 0
    for name in names:
        p = parameters[name]
        taken[_positions(p)] = True
        marked += p.numel()
        if int(taken.sum()) != marked:
            raise MergeError(
                f"{name} shares memory with another parameter, or with itself",
                found=f"shape {tuple(p.shape)}, strides {p.stride()}",
                expected="elements of its own, or one parameter object for tied weights",
                do="clone the parameter, or tie it by assigning the same nn.Parameter",
            )


def _positions(p: Tensor) -> Tensor:
    """Return where the elements of a tensor stand in its storage."""
    where = torch.tensor(int(p.storage_offset()))
    for size, stride in zip(p.shape, p.stride(), strict=True):
        where = where[..., None] + torch.arange(size) * stride
    return where.reshape(-1)
