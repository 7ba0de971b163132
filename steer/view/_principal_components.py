"""Where answers lie in the residual stream: the axes along which they vary most."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steer.errors import SelectionError
from steer.extract import Activations
from steer.model import Model
from steer.pairs import Pairs
from steer.show import Row
from steer.view._base import Panel, View
from steer.view._checks import check_count
from steer.view._drawing import legend_name
from steer.view._look import category
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
        rows, sum_so_far = [], 0.0
        for k, share in enumerate(self.explained.tolist()):
            sum_so_far += share
            column = self.scores[:, k]
            found = auc(column[self.chosen], column[~self.chosen])
            rows.append(
                {
                    "component": k + 1,
                    "share of variance": share,
                    "sum of shares": sum_so_far,
                    "AUC chosen": found.value,
                    "AUC low": found.interval[0],
                    "AUC high": found.interval[1],
                }
            )
        return rows

    @property
    def points(self) -> list[Row]:
        """One row per answer: domain, side, and its coordinates."""
        names = [f"component {k + 1}" for k in range(self.scores.shape[1])]
        return [
            {"domain": d, "side": "chosen" if c else "rejected", **dict(zip(names, s, strict=True))}
            for d, c, s in zip(
                self.domains, self.chosen.tolist(), self.scores.tolist(), strict=True
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
    def panels(self) -> Mapping[str, Panel]:
        """The answers on the first two components, and the variance of all."""
        return {"answers": Panel(self._draw, 5.2, 4.8), "variance": Panel(self._bars, 3.4, 4.8)}

    def _draw(self, ax: Any) -> None:
        x, y = self.scores[:, 0].numpy(), self.scores[:, 1].numpy()
        for n, domain in enumerate(dict.fromkeys(self.domains)):
            here = torch.tensor([d == domain for d in self.domains])
            look = category(n)
            for side, rows in (("chosen", here & self.chosen), ("rejected", here & ~self.chosen)):
                ax.scatter(
                    x[rows.numpy()],
                    y[rows.numpy()],
                    marker=look["marker"],
                    s=22,
                    facecolors=look["color"] if side == "chosen" else "none",
                    edgecolors=look["color"],
                    linewidths=1.0,
                    alpha=0.8,
                    label=legend_name(side if domain is None else f"{domain}, {side}"),
                )
        first, second = (100 * self.explained[:2]).tolist()
        ax.set_xlabel(f"component 1 (residual units, {first:.0f}% of variance)")
        ax.set_ylabel(f"component 2 (residual units, {second:.0f}% of variance)")
        ax.locator_params(axis="x", nbins=6)
        ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        ax.grid(alpha=0.3)

    def _bars(self, ax: Any) -> None:
        shares = (100 * self.explained).tolist()
        ax.bar(range(1, len(shares) + 1), shares, color=category(0)["color"])
        ax.set(xlabel="component", ylabel="share of variance (%)", ylim=(0, None))
        ax.set_xticks(range(1, len(shares) + 1, max(1, -(-len(shares) // 10))))
        ax.grid(axis="y", alpha=0.3)


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
        SelectionError: Fewer than two components are asked for, or above rounding.
        SteeringError: The model is steered by rows, a gate or a scope.
    """
    check_count("components", components)
    found = read_pairs(model, pairs, position, [layer])
    stream = torch.cat([found.chosen[:, 0], found.rejected[:, 0]])
    mean = stream.mean(dim=0)
    U, S, Vh = torch.linalg.svd(stream - mean, full_matrices=False)
    variance = S.square() / (len(stream) - 1)
    rank = int((variance.sqrt() > _noise(stream, found.eps)).sum())
    if components < 2 or rank < 2:
        raise SelectionError(
            "there are no two components",
            found=f"components={components}, {rank} above rounding in {len(stream)} answers",
            expected="at least two components of answers that vary",
            do="give more pairs, or ask for more components",
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
        found.layers[0],
        position,
    )


def _noise(stream: Float[Tensor, "pair d_model"], eps: float) -> float:
    """Return the largest standard deviation along a direction that rounding alone gives."""
    n, d = stream.shape
    length = float(stream.norm(dim=-1).mean())
    return eps * length * (1 / math.sqrt(d) + 1 / math.sqrt(n - 1))
