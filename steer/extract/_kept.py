"""The activations of single pairs."""

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

    def join(self, *others: "KeptPairs") -> "KeptPairs":
        """Return these pairs followed by others.

        Args:
            *others: The activations of other pairs.
        """
        parts = (self, *others)
        chosen = torch.cat([part.chosen for part in parts])
        return KeptPairs(chosen, torch.cat([part.rejected for part in parts]))
