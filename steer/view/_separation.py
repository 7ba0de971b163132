"""How well a direction tells chosen from rejected answers, layer by layer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Vector
from steer.extract import Activations
from steer.measure import Estimate
from steer.model import Model, check_model
from steer.pairs import Pairs
from steer.show import Chart, Curves, Row
from steer.view._base import View
from steer.view._charts import LAYER, columns, estimates
from steer.view._directions import units
from steer.view._reading import read_pairs
from steer.view._separate import auc, d_prime, resolution


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Separation(View):
    """Projections of chosen and rejected answers on a direction at each layer.

    Args:
        chosen: `[pair layer]`, (h · v)/‖v‖ in residual units.
        rejected: `[pair layer]` likewise.
        resolution: `[layer]`, the largest difference of two projections that rounding alone can
            make, in residual units. Differences up to it are ties.
        layers: The layers.
        position: Where the stream was read.
    """

    chosen: Float[Tensor, "pair layer"]
    rejected: Float[Tensor, "pair layer"]
    resolution: Float[Tensor, " layer"]
    layers: tuple[int, ...]
    position: str

    @property
    def auc(self) -> tuple[Estimate, ...]:
        """At each layer the probability that a chosen answer projects above a rejected one."""
        return tuple(auc(*sides) for sides in self._sides())

    @property
    def d_prime(self) -> tuple[Estimate, ...]:
        """At each layer the distance of the mean projections in standard deviations."""
        return tuple(d_prime(*sides) for sides in self._sides())

    def _sides(self) -> Iterable[tuple[Tensor, Tensor, float]]:
        return zip(self.chosen.T, self.rejected.T, self.resolution.tolist(), strict=True)

    @property
    def rows(self) -> list[Row]:
        """One row per layer: AUC and d′ with their 95% intervals, and the number of pairs."""
        return [
            {"layer": layer, **columns("AUC", a), **columns("d′", d), "n": a.n}
            for layer, a, d in zip(self.layers, self.auc, self.d_prime, strict=True)
        ]

    @property
    def title(self) -> str:
        """How many pairs, read where."""
        return f"Separation of chosen and rejected · {len(self.chosen)} pairs · {self.position}"

    @property
    def panels(self) -> Mapping[str, Chart]:
        """AUC by layer, and d′ by layer."""
        low = [e.interval[0] for e in self.auc]
        limits = min(0.45, *(v for v in low if v == v)) - 0.02, 1.02
        return {
            "AUC": self._chart(self.auc, "AUC (0.5 = chance)", 0.5, limits),
            "d′": self._chart(self.d_prime, "d′ (standard deviations)", 0.0, (None, None)),
        }

    def _chart(
        self,
        found: Sequence[Estimate],
        caption: str,
        chance: float,
        limits: tuple[float | None, float | None],
    ) -> Curves:
        points = {"": estimates(self.layers, found)}
        return Curves(caption, LAYER, points, level=chance, limits=limits, whole=True)


def separation(
    model: Model,
    vector: Vector,
    pairs: Pairs | Activations,
    *,
    position: str | None = None,
    layers: Sequence[int] | None = None,
) -> Separation:
    """Return how well a direction separates chosen from rejected answers at each layer.

    s = (h · v)/‖v‖. Take pairs that the direction was not made from: on its own pairs any
    direction looks good. Inside `with model.steered(...)` the steered stream is read.

    Args:
        model: The model.
        vector: A vector; that of `mean_difference` has a direction at every layer.
        pairs: Held-out pairs, or a recording of them that kept its pairs.
        position: Where to read, as `record` labels it; by default where the direction was read,
            and `template[-1]` if that is not known.
        layers: Layers to read; by default those of the vector. A vector of one layer is read in
            that direction at all of them.

    Returns:
        AUC and d′ at each layer.

    Raises:
        RecordingError: No pairs, no such layer or position, or the stream is not finite.
        ArgumentError: An argument has the wrong type.
        SelectionError: A direction is zero.
        SteeringError: The model is steered by rows, a gate or a scope.
        FitError: The direction has another width than the model.
    """
    check_model(model)
    wanted, along = units("vector", vector, layers, model=model)
    if position is None:
        position = str(vector.provenance.arguments.get("position", "template[-1]"))
    found = read_pairs(model, pairs, position, wanted)
    both = [stream * along for stream in (found.chosen, found.rejected)]
    ties = resolution(torch.cat(both), found.eps)
    chosen, rejected = (products.sum(dim=-1) for products in both)
    return Separation(chosen, rejected, ties, wanted, position)
