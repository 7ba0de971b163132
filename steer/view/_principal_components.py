"""Where answers lie in the residual stream: the axes along which they vary most."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steer._check import integer
from steer.errors import SelectionError
from steer.extract import Activations
from steer.model import Model
from steer.pairs import Pairs
from steer.show import Bars, Chart, Curves, Row, Series
from steer.view._base import View
from steer.view._reading import read_pairs
from steer.view._separate import auc


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class PrincipalComponents(View):
    """Answers in the coordinates of their principal components.

    Args:
        scores: `[pair rank]`: the coordinates of each answer, in residual units; all chosen ones,
            then all rejected ones.
        components: `[rank d_model]`: orthonormal; chosen answers have the larger mean on each.
        mean: `[d_model]`, in residual units.
        variance: `[rank]`: variance along each component, in squared residual units.
        total: Variance along all directions.
        chosen: `[pair]`: which answers were chosen.
        domains: The domain of each answer.
        layer: The layer.
        position: Where the stream was read.
    """

    scores: Float[Tensor, "pair rank"]
    components: Float[Tensor, "rank d_model"]
    mean: Float[Tensor, " d_model"]
    variance: Float[Tensor, " rank"]
    total: float
    chosen: Bool[Tensor, " pair"]
    domains: tuple[str | None, ...]
    layer: int
    position: str

    @property
    def explained(self) -> Float[Tensor, " rank"]:
        """The share of the variance along each component."""
        return self.variance / self.total

    @property
    def rows(self) -> list[Row]:
        """One row per component: its share of the variance, and the AUC of chosen answers."""
        shares = self.explained.tolist()
        sides = zip(self.scores[self.chosen].T, self.scores[~self.chosen].T, strict=True)
        found = [auc(chosen, rejected) for chosen, rejected in sides]
        return [
            {
                "component": k + 1,
                "share of variance": share,
                "sum of shares": total,
                "AUC chosen": one.value,
                "AUC low": one.interval[0],
                "AUC high": one.interval[1],
            }
            for k, (share, total, one) in enumerate(
                zip(shares, accumulate(shares), found, strict=True)
            )
        ]

    @property
    def title(self) -> str:
        """Layer, position and number of answers."""
        return (
            f"Principal components · {len(self.scores)} answers · layer {self.layer} · "
            f"{self.position}"
        )

    @property
    def panels(self) -> Mapping[str, Chart]:
        """The answers on the first two components, and the variance of all."""
        first, second = (100 * self.explained[:2]).tolist()
        shares = (100 * self.explained).tolist()
        answers = Curves(
            f"component 2 (residual units, {second:.0f}% of variance)",
            f"component 1 (residual units, {first:.0f}% of variance)",
            self._series(),
        )
        labels = tuple(str(k + 1) for k in range(len(shares)))
        variance = Bars("share of variance (%)", labels, tuple(shares), along="component")
        return {"answers": answers, "variance": variance}

    def _series(self) -> dict[str, Series]:
        found = {}
        for hue, domain in enumerate(dict.fromkeys(self.domains)):
            here = torch.tensor([d == domain for d in self.domains])
            for side, rows in (("chosen", here & self.chosen), ("rejected", here & ~self.chosen)):
                name = side if domain is None else f"{domain}, {side}"
                points = tuple((float(x), float(y)) for x, y in self.scores[rows][:, :2])
                found[name] = Series(points, joined=False, hollow=side == "rejected", hue=hue)
        return found


def principal_components(
    model: Model,
    pairs: Pairs | Activations,
    *,
    layer: int,
    position: str = "template[-1]",
    components: int = 10,
) -> PrincipalComponents:
    """Return the principal components of chosen and rejected answers at one layer.

    H − mean = S C with orthonormal rows C, by singular value decomposition in float64; component k
    has the variance ‖S_k‖² / (answers − 1). Only components that vary more than rounding alone
    makes them vary are given: with a standard deviation above ε ‖h‖ (1/√d + 1/√(answers − 1)), the
    largest of noise of length ε ‖h‖ in all d directions, ε being the epsilon of the stream's dtype.

    Args:
        model: The model; inside `with model.steered(...)` the steered stream is read.
        pairs: The pairs, of one domain or several; or a recording that kept its pairs.
        layer: The layer (block output, 0-based).
        position: Where to read, as `record` labels it.
        components: How many to keep, at least 2; fewer are given where there are no more.

    Returns:
        Scores, components and variances.

    Raises:
        RecordingError: No pairs, or no such layer or position.
        ArgumentError: Fewer than two components are asked for.
        SelectionError: Fewer than two components are above rounding.
        SteeringError: The model is steered by rows, a gate or a scope.
    """
    integer("components", components, least=2)
    found = read_pairs(model, pairs, position, [layer])
    stream = torch.cat([found.chosen[:, 0], found.rejected[:, 0]])
    mean = stream.mean(dim=0)
    U, S, Vh = torch.linalg.svd(stream - mean, full_matrices=False)
    variance = S.square() / (len(stream) - 1)
    rank = int((variance.sqrt() > _noise(stream, found.eps)).sum())
    if rank < 2:
        raise SelectionError(
            "fewer than two components vary",
            found=f"{rank} above rounding in {len(stream)} answers",
            expected="at least two components of answers that vary",
            do="give more pairs",
        )
    kept = slice(0, min(components, rank))
    scores = (U * S)[:, kept]
    n = len(found.chosen)
    sign = torch.where(scores[:n].mean(dim=0) < scores[n:].mean(dim=0), -1.0, 1.0).double()
    return PrincipalComponents(
        scores * sign,
        Vh[kept] * sign[:, None],
        mean,
        variance[kept],
        float(variance.sum()),
        torch.arange(2 * n) < n,
        found.domains * 2,
        int(layer),
        position,
    )


def _noise(stream: Float[Tensor, "pair d_model"], eps: float) -> float:
    """Return the largest standard deviation along a direction that rounding alone gives."""
    n, d = stream.shape
    length = float(stream.norm(dim=-1).mean())
    return eps * length * (1 / math.sqrt(d) + 1 / math.sqrt(n - 1))
