"""Cosines between the directions of one vector, or of two, at different layers."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Vector
from steer.errors import AlgebraError
from steer.show import Chart, Row
from steer.view._base import View
from steer.view._charts import matrix
from steer.view._checks import check_kind
from steer.view._directions import directions


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class LayerCosines(View):
    """Cosines between directions at different layers.

    Args:
        values: `[layer layer]`: row layers of the first, column layers of the second vector. NaN
            where a direction is zero.
        layers: Layers of the first.
        other_layers: Layers of the second.
        names: Names of both, for people.
    """

    values: Float[Tensor, "layer layer"]
    layers: tuple[int, ...]
    other_layers: tuple[int, ...]
    names: tuple[str, str]

    @property
    def rows(self) -> list[Row]:
        """One row per layer of the first, one column per layer of the second."""
        return [
            {"layer": row, **{str(c): v for c, v in zip(self.other_layers, values, strict=True)}}
            for row, values in zip(self.layers, self.values.tolist(), strict=True)
        ]

    @property
    def title(self) -> str:
        """What is compared."""
        return f"Cosines between layers · {self.names[0]} × {self.names[1]}"

    @property
    def panels(self) -> Mapping[str, Chart]:
        """The matrix."""
        first, second = (f"layer of {name}" for name in self.names)
        rows, columns = map(str, self.layers), map(str, self.other_layers)
        names = {"down": first, "across": second}
        return {"layers": matrix("cosine", self.values, rows, columns, (-1.0, 1.0), **names)}


def layer_cosines(vector: Vector, other: Vector | None = None) -> LayerCosines:
    """Return the cosines between a vector's directions at different layers.

    C[l, m] = u_l · w_m / (‖u_l‖ ‖w_m‖): whether a model keeps one direction through its layers.

    Args:
        vector: A residual vector, best of all layers.
        other: Another one; by default the same.

    Returns:
        The matrix.

    Raises:
        RecordingError: A vector has no residual site.
        AlgebraError: The vectors have different widths.
        ArgumentError: An argument is not a vector.
    """
    second = vector if other is None else other
    check_kind("vector", vector, Vector)
    check_kind("other", second, Vector)
    (rows, u), (columns, w) = directions(vector, None), directions(second, None)
    if u.shape[1] != w.shape[1]:
        raise AlgebraError(
            "directions of different widths have no cosine",
            found=f"widths {u.shape[1]} and {w.shape[1]}",
            expected="one width",
            do="compare vectors of one model",
        )
    values = (_unit(u) @ _unit(w).T).clamp(-1.0, 1.0)
    return LayerCosines(values, rows, columns, (_name(vector), _name(second)))


def _unit(directions: Tensor) -> Tensor:
    lengths = directions.norm(dim=-1, keepdim=True)
    return directions / torch.where(lengths > 0, lengths, torch.nan)


def _name(vector: Vector) -> str:
    return vector.provenance.domain or vector.provenance.method
