"""What shows that a merged parameter was changed by somebody else."""

from dataclasses import dataclass

import torch
from torch import Tensor

from steer.network._fingerprint import sampled


@dataclass(frozen=True, eq=False, slots=True)
class Mark:
    """A parameter as it was when it was merged.

    In-place operations of torch count a version. Code that goes around it (`.data`, kernels of
    other libraries) is seen by a sample of the numbers, and a conversion by another address: the
    mark holds the memory, so that nothing new can stand at the old one.

    Args:
        parameter: The parameter.
        version: How often it was written to; None for one that was made in inference mode.
        memory: Its memory.
        dtype: Its dtype.
        sample: The bytes of some of its numbers.
    """

    parameter: Tensor
    version: int | None
    memory: Tensor
    dtype: torch.dtype
    sample: bytes

    @classmethod
    def of(cls, parameter: Tensor) -> "Mark":
        """Return the mark of a parameter as it is now.

        Args:
            parameter: The parameter.
        """
        sample = sampled(parameter.detach())
        memory = parameter.detach()
        return cls(parameter, _version(parameter), memory, parameter.dtype, sample)

    @property
    def untouched(self) -> bool:
        """Whether nothing shows without reading a number that it was changed, or moved."""
        p = self.parameter
        return p.data_ptr() == self.memory.data_ptr() and _version(p) == self.version

    def holds(self, parameter: Tensor) -> bool:
        """Return whether a parameter may have the same numbers still, by dtype and sample.

        Args:
            parameter: The parameter that has its name now.
        """
        return parameter.dtype == self.dtype and sampled(parameter.detach()) == self.sample

    def written(self, parameter: Tensor) -> bool:
        """Return whether a parameter was written to since, by the count of torch.

        Args:
            parameter: The parameter that has its name now.
        """
        return parameter is not self.parameter or _version(parameter) != self.version


def _version(parameter: Tensor) -> int | None:
    return None if parameter.is_inference() else parameter._version
