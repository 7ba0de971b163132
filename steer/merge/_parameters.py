"""Parameters that are merged into: which can be, and whether anyone else wrote to them."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor

from steer.algebra import Term
from steer.errors import MergeError
from steer.merge._pristine import Pristine
from steer.merge._rounding import fill
from steer.network._fingerprint import sampled
from steer.network._parameters.layout import FLOATS

Added = Sequence[tuple[Term, float]]


class Merged:
    """A parameter that is merged into: its pristine values, and its state when it was written.

    The version counter of torch counts in-place operations. Writes that bypass it (`.data`, kernels
    of other libraries) show in a sample of the values, and a conversion in a new address: the
    memory is kept alive, so that nothing else can take that address.
    """

    def __init__(self, name: str, pristine: Pristine, parameter: Tensor) -> None:
        self.name, self.pristine = name, pristine
        self.unfinished = False  # whether it holds neither its setting nor pristine values
        self.note(parameter)

    def note(self, parameter: Tensor) -> None:
        """Remember a parameter as it is now."""
        self._parameter, self._memory = parameter, parameter.detach()
        self._version, self._sample = _version(parameter), sampled(self._memory)

    @property
    def untouched(self) -> bool:
        """Whether address and version are those of the last write; no value is read."""
        p = self._parameter
        return p.data_ptr() == self._memory.data_ptr() and _version(p) == self._version

    def changed(self, parameter: Tensor, added: Added) -> bool:
        """Return whether anyone else has changed the values; after a write, compare all."""
        pristine, values = self.pristine.checked(), parameter.detach()
        same = values.shape == pristine.shape and values.dtype == self._memory.dtype
        if not same or sampled(values) != self._sample:
            return True
        if parameter is self._parameter and _version(parameter) == self._version:
            return False
        expected = torch.empty_like(values, device="cpu")
        fill(expected, pristine, added, self.name)
        return not torch.equal(expected, values.cpu())

    def write(self, parameter: Tensor | None, added: Added) -> None:
        """Write the pristine values plus what is added; none is added to a converted parameter."""
        pristine = self.pristine.checked()
        if (
            parameter is None
            or parameter.shape != pristine.shape
            or (added and parameter.dtype != pristine.dtype)
        ):
            here = parameter is not None and f"shape {tuple(parameter.shape)}, {parameter.dtype}"
            raise MergeError(
                f"{self.name}: the model was changed while it was merged",
                found=here or "no such parameter",
                expected=f"shape {tuple(pristine.shape)}, {pristine.dtype}",
                do="convert or resize the model before merging, or load it again",
            )
        with torch.inference_mode(parameter.is_inference()), torch.no_grad():
            fill(parameter.detach(), pristine, added, self.name)
        self.note(parameter)
        self.unfinished = False


def _version(parameter: Tensor) -> int | None:
    return None if parameter.is_inference() else parameter._version


def check_writable(parameters: Mapping[str, Tensor], names: Sequence[str]) -> None:
    """Refuse parameters that do not exist or whose values cannot be written."""
    for name in names:
        parameter, found = parameters.get(name), None
        if parameter is None:
            found = "no such parameter, or one that is tied to another name"
        elif parameter.is_meta:
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


def check_disjoint(parameters: Mapping[str, Tensor]) -> None:
    """Refuse parameters that share memory: writing one would change the other."""
    groups: dict[tuple[str, int], list[tuple[int, str]]] = {}
    for name, p in parameters.items():
        if p.numel():
            key = (str(p.device), p.untyped_storage().data_ptr())
            groups.setdefault(key, []).append((p.data_ptr(), name))
    for members in groups.values():
        own = [parameters[name] for _, name in sorted(members)]
        apart = all(a.data_ptr() + a.nbytes <= b.data_ptr() for a, b in pairwise(own))
        if apart and all(p.is_contiguous() for p in own):
            continue
        taken = torch.cat([_elements(p) for p in own])
        if len(taken.unique()) < len(taken):
            raise MergeError(
                f"{members[-1][1]} shares memory with another parameter, or with itself",
                found=f"{len(taken)} elements of {', '.join(name for _, name in members)}",
                expected="elements of its own, or one parameter object for tied weights",
                do="clone the parameter, or tie it by assigning the same nn.Parameter",
            )


def _elements(p: Tensor) -> Int[Tensor, " element"]:
    """Return where each element of a tensor lies in its storage."""
    every = torch.arange(p.untyped_storage().nbytes() // p.element_size())
    return every.as_strided(p.shape, p.stride(), p.storage_offset()).reshape(-1)
