"""Parameters that merging writes in place: which can be written, and whether anyone else did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from steer.errors import MergeError
from steer.network._fingerprint import sampled
from steer.network._parameters.layout import FLOATS


@dataclass(frozen=True, eq=False, slots=True)
class Mark:
    """The state of a parameter just after it was merged, to detect writes by others.

    The version counter of torch counts in-place operations. Writes that bypass it (`.data`, kernels
    of other libraries) show in a sample of the values, and a conversion in a new address: the mark
    keeps the memory alive, so that nothing else can take that address.
    """

    parameter: Tensor
    version: int | None
    memory: Tensor
    sample: bytes

    @classmethod
    def of(cls, parameter: Tensor) -> "Mark":
        """Return the mark of a parameter as it is now."""
        memory = parameter.detach()
        return cls(parameter, _version(parameter), memory, sampled(memory))

    @property
    def untouched(self) -> bool:
        """Whether address and version are unchanged; no value is read."""
        p = self.parameter
        return p.data_ptr() == self.memory.data_ptr() and _version(p) == self.version

    def holds(self, parameter: Tensor) -> bool:
        """Return whether a parameter has the dtype and the sampled values of the mark."""
        same_dtype = parameter.dtype == self.memory.dtype
        return same_dtype and sampled(parameter.detach()) == self.sample

    def written(self, parameter: Tensor) -> bool:
        """Return whether the version counter shows a write since, or the parameter is another."""
        return parameter is not self.parameter or _version(parameter) != self.version


def _version(parameter: Tensor) -> int | None:
    return None if parameter.is_inference() else parameter._version


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Return whether two tensors have the same dtype, shape and bits."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    bits = (tensor.detach().cpu().reshape(-1).view(torch.uint8) for tensor in (left, right))
    return torch.equal(*bits)


def check_writable(
    model: nn.Module, parameters: Mapping[str, Tensor], names: Sequence[str]
) -> None:
    """Refuse parameters that do not exist or whose values cannot be written."""
    for name in names:
        if name not in parameters:
            raise _unknown(model, name)
        parameter = parameters[name]
        found = None
        if parameter.is_meta:
            found = "no data: it is offloaded, or on the meta device"
        elif parameter.dtype not in FLOATS or type(parameter.data) is not Tensor:
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
    """Refuse parameters that share memory: writing one would change the other."""
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
    """Refuse parameters of one storage that hold an element of it twice."""
    first = parameters[names[0]]
    taken = torch.zeros(first.untyped_storage().nbytes() // first.element_size(), dtype=torch.bool)
    count = 0
    for name in names:
        p = parameters[name]
        expanded = any(
            size > 1 and stride == 0 for size, stride in zip(p.shape, p.stride(), strict=True)
        )
        if not expanded:
            taken.as_strided(p.shape, p.stride(), p.storage_offset()).fill_(True)
        count += p.numel()
        if expanded or int(taken.sum()) != count:
            raise MergeError(
                f"{name} shares memory with another parameter, or with itself",
                found=f"shape {tuple(p.shape)}, strides {p.stride()}",
                expected="elements of its own, or one parameter object for tied weights",
                do="clone the parameter, or tie it by assigning the same nn.Parameter",
            )
