"""The activations of single pairs, which moments average away."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False, slots=True)
class KeptPairs:
    """The residual stream of every pair of one domain at one position, in float32.

    Args:
        chosen: `[pair layer d_model]`, in residual units, in the order of the pairs.
        rejected: The same of the rejected responses.
    """

    chosen: Float[Tensor, "pair layer d_model"]
    rejected: Float[Tensor, "pair layer d_model"]

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def difference(self) -> Float[Tensor, "pair layer d_model"]:
        """Chosen − rejected of each pair, in float64."""
        return self.chosen.double() - self.rejected.double()

    def join(self, other: "KeptPairs") -> "KeptPairs":
        """Return these pairs followed by others.

        Args:
            other: The activations of other pairs.
        """
        chosen = torch.cat([self.chosen, other.chosen])
        return KeptPairs(chosen, torch.cat([self.rejected, other.rejected]))
