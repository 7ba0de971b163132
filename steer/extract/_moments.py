"""Streaming first and second moments of paired activations, in float64, and single pairs.

Partial results are merged pairwise (Chan, Golub and LeVeque, 1983), so the result depends on the
batches only up to rounding.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer.extract._shuffled import Shuffled


@dataclass(frozen=True, eq=False, slots=True)
class Moments:
    """Statistics of the pairs of one domain at one position; all tensors are float64.

    Args:
        count: Number of pairs n.
        mean_chosen: `[layer d_model]`, in residual units.
        mean_rejected: `[layer d_model]`, in residual units.
        second: `[layer d_model]`: Σ (d − mean d)² over the pairs' differences
            d = chosen − rejected, in squared residual units.
        halves: Mean difference of the even-numbered and of the odd-numbered pairs, each
            `[layer d_model]`, in residual units; zero for an empty half.
        half_counts: Number of pairs in each half.
        norm: `[layer]`: mean ‖h‖ over chosen and rejected tokens, in residual units.
        shuffled: The same pairs under random labels; None if a file lacks them.
    """

    count: int
    mean_chosen: Float[Tensor, "layer d_model"]
    mean_rejected: Float[Tensor, "layer d_model"]
    second: Float[Tensor, "layer d_model"]
    halves: tuple[Float[Tensor, "layer d_model"], Float[Tensor, "layer d_model"]]
    half_counts: tuple[int, int]
    norm: Float[Tensor, " layer"]
    shuffled: Shuffled | None = None

    @classmethod
    def of(
        cls,
        chosen: Float[Tensor, "pair layer d_model"],
        rejected: Float[Tensor, "pair layer d_model"],
        norm: Float[Tensor, "pair layer"],
        numbers: list[int],
    ) -> "Moments":
        """Return the moments of a batch of pairs, given mean ‖h‖ and the number of each pair.

        Even and odd numbers make the halves, and random labels are drawn by number.
        """
        chosen, rejected = chosen.double(), rejected.double()
        difference = chosen - rejected
        mean = difference.mean(dim=0)
        half = [[i for i, n in enumerate(numbers) if n % 2 == odd] for odd in (0, 1)]
        even, odd = (difference[h].sum(dim=0) / max(len(h), 1) for h in half)
        return cls(
            len(numbers),
            chosen.mean(dim=0),
            rejected.mean(dim=0),
            (difference - mean).square_().sum(dim=0),
            (even, odd),
            (len(half[0]), len(half[1])),
            norm.double().mean(dim=0),
            Shuffled.of(difference, numbers),
        )

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of pairs together.

        M2 = M2₁ + M2₂ + (mean₂ − mean₁)² n₁n₂/(n₁+n₂).
        """
        n1, n2 = self.count, other.count
        shift = other.difference - self.difference
        c1, c2 = self.half_counts, other.half_counts
        even, odd = (
            _weighted(a, b, m1, m2)
            for a, b, m1, m2 in zip(self.halves, other.halves, c1, c2, strict=True)
        )
        shuffled = None
        if self.shuffled is not None and other.shuffled is not None:
            shuffled = self.shuffled.join(other.shuffled)
        return Moments(
            n1 + n2,
            _weighted(self.mean_chosen, other.mean_chosen, n1, n2),
            _weighted(self.mean_rejected, other.mean_rejected, n1, n2),
            self.second + other.second + shift.square() * (n1 * n2 / (n1 + n2)),
            (even, odd),
            (c1[0] + c2[0], c1[1] + c2[1]),
            _weighted(self.norm, other.norm, n1, n2),
            shuffled,
        )

    @property
    def difference(self) -> Float[Tensor, "layer d_model"]:
        """Mean chosen − mean rejected, `[layer d_model]`, in residual units."""
        return self.mean_chosen - self.mean_rejected

    @property
    def standard_error(self) -> Float[Tensor, "layer d_model"]:
        """√(second / (n − 1) / n), `[layer d_model]`, in residual units; NaN for one pair."""
        if self.count < 2:
            return torch.full_like(self.second, torch.nan)
        return (self.second / (self.count - 1) / self.count).sqrt()

    @property
    def split_half_cosine(self) -> Float[Tensor, " layer"]:
        """Cosine between the mean differences of the two halves, `[layer]`.

        NaN where a half is empty or its mean difference is zero.
        """
        even, odd = self.halves
        lengths = torch.linalg.vector_norm(even, dim=-1) * torch.linalg.vector_norm(odd, dim=-1)
        return (even * odd).sum(dim=-1) / torch.where(lengths > 0, lengths, torch.nan)


def _weighted(a: Tensor, b: Tensor, n: int, m: int) -> Tensor:
    """Return the mean of n values with mean a and m values with mean b."""
    return a if m == 0 else a + (b - a) * (m / (n + m))


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
        """Return these pairs followed by others."""
        parts = (self, *others)
        chosen = torch.cat([part.chosen for part in parts])
        return KeptPairs(chosen, torch.cat([part.rejected for part in parts]))
