"""Cosines between the directions of one vector at different layers."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from steer.algebra import Vector
from steer.show import Chart, Row
from steer.view._base import View
from steer.view._charts import matrix
from steer.view._directions import directions


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class LayerCosines(View):
    """Cosines between directions at different layers.

    Args:
        values: `[layer layer]`. NaN where a direction is zero.
        layers: The layers.
        name: Of the vector, for people.
    """

    values: Float[Tensor, "layer layer"]
    layers: tuple[int, ...]
    name: str

    @property
    def rows(self) -> list[Row]:
        """One row and one column per layer."""
        names = ["layer", *map(str, self.layers)]
        return [
            dict(zip(names, (layer, *values), strict=True))
            for layer, values in zip(self.layers, self.values.tolist(), strict=True)
        ]

    @property
    def title(self) -> str:
        """What is compared."""
        return f"Cosines between the layers of {self.name}"

    @property
    def panels(self) -> Mapping[str, Chart]:
        """The matrix."""
        layers, axes = list(map(str, self.layers)), {"down": "layer", "across": "layer"}
        return {"layers": matrix("cosine", self.values, layers, layers, (-1.0, 1.0), **axes)}


def layer_cosines(vector: Vector) -> LayerCosines:
    """Return the cosines between a vector's directions at different layers.

    C[l, m] = u_l · u_m / (‖u_l‖ ‖u_m‖): whether a model keeps one direction through its layers.

    Args:
        vector: A residual vector, best of all layers.

    Returns:
        The matrix.

    Raises:
        RecordingError: The vector has no residual site.
        ArgumentError: It is no vector.
    """
    layers, u = directions("vector", vector)
    u = u / u.norm(dim=-1, keepdim=True)
    name = vector.provenance.domain or vector.provenance.method
    return LayerCosines((u @ u.T).clamp(-1.0, 1.0), layers, name)
