"""Label-shuffled controls: the mean differences of the same pairs under random labels."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

CONTROLS = 16  # the squared cosine of one control scatters as χ²₁, the mean of 16 by a third
_MOST_LAYERS = 4  # neighbouring layers say the same
_BLOCK = 1024


@dataclass(frozen=True, eq=False, slots=True)
class Shuffled:
    """Sums of the pairs' differences dᵢ under random labels sᵢ = ±1, at up to four layers.

    A control is c = Σ sᵢ (dᵢ − v) / n: what would be the mean difference if chosen and rejected
    were exchanged at random, without what all pairs share. Without v subtracted, the control of
    pairs that agree perfectly would be parallel to v. E⟨c, v⟩² / E‖c‖² is the share of the
    variance of single differences that lies along v.
    """

    signs: tuple[int, ...]
    sums: Float[Tensor, "setting layer d_model"]

    @classmethod
    def of(cls, difference: Float[Tensor, "pair layer d_model"], numbers: list[int]) -> "Shuffled":
        """Return the controls of a batch of pairs."""
        labels = torch.stack([_labels(n // _BLOCK)[n % _BLOCK] for n in numbers])
        few = difference[:, layers_read(difference.shape[1])]
        signs = tuple(labels.sum(dim=0).int().tolist())
        return cls(signs, torch.einsum("ps,pld->sld", labels, few))

    def join(self, other: "Shuffled") -> "Shuffled":
        """Return the controls of both sets of pairs together."""
        signs = tuple(a + b for a, b in zip(self.signs, other.signs, strict=True))
        return Shuffled(signs, self.sums + other.sums)

    def cosine(self, mean: Float[Tensor, "layer d_model"]) -> Float[Tensor, " layer"]:
        """Return the root mean square cosine between a mean difference and its controls.

        √(Σ ⟨c, v⟩² / (‖v‖² Σ ‖c‖²)) over the controls; NaN where v or all controls are zero.
        """
        v = mean[layers_read(len(mean))]
        centred = self.sums - torch.tensor(self.signs)[:, None, None] * v
        along = torch.einsum("sld,ld->sl", centred, v).square().sum(dim=0)
        lengths = centred.square().sum(dim=(0, -1)) * v.square().sum(dim=-1)
        return (along / lengths).sqrt()


def layers_read(count: int) -> list[int]:
    """Return the indices of the layers that have controls: all of up to four, else four."""
    most = min(count, _MOST_LAYERS)
    return [(2 * k + 1) * count // (2 * most) for k in range(most)]


@lru_cache(maxsize=4)
def _labels(block: int) -> Float[Tensor, "pair setting"]:
    """Return the random labels of 1024 pairs."""
    generator = torch.Generator().manual_seed(block)
    return torch.randint(0, 2, (_BLOCK, CONTROLS), generator=generator).double() * 2 - 1
