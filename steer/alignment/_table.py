"""The table of an alignment vector's tensors: form, norm, energy kept and error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from steer.algebra._cards.weights import Weighed, kinds_of, weighed_table
from steer.show import Card, Shown


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One tensor.

    Args:
        name: The parameter.
        shape: Its shape.
        rank: Rank of the factors; None if it is dense.
        norm: ‖ΔW‖, in weight units.
        energy: Share of ‖ΔW‖² that the factors keep, by the singular values.
        error: ‖ΔW − BA‖ / ‖ΔW‖, measured on the factors as they are.
    """

    name: str
    shape: tuple[int, ...]
    rank: int | None
    norm: float
    energy: float
    error: float

    @property
    def form(self) -> str:
        """Its form: `rank 16`, `dense`, or `dense (3-D)` for a block of experts."""
        if self.rank is not None:
            return f"rank {self.rank}"
        return "dense" if len(self.shape) <= 2 else f"dense ({len(self.shape)}-D)"


@dataclass(frozen=True, slots=True, repr=False)
class TensorTable(Shown):
    """All tensors of a vector, printed as a table.

    Args:
        rows: One for each tensor.
    """

    rows: tuple[TensorRow, ...]

    @property
    def norm(self) -> float:
        """‖ΔW‖ over all tensors, in weight units."""
        return math.hypot(*(row.norm for row in self.rows))

    @property
    def energy(self) -> float:
        """Share of ‖ΔW‖² kept over all tensors."""
        return self._mean([row.energy for row in self.rows])

    @property
    def error(self) -> float:
        """‖ΔW − BA‖ / ‖ΔW‖ over all tensors."""
        return math.sqrt(self._mean([row.error**2 for row in self.rows]))

    def _mean(self, values: Sequence[float]) -> float:
        total = sum(row.norm**2 for row in self.rows)
        weighted = sum(r.norm**2 * v for r, v in zip(self.rows, values, strict=True))
        return weighted / total if total else 0.0

    def _card(self) -> Card:
        rows = [
            Weighed(
                row.name, row.shape, row.form, row.norm, (f"{row.energy:.2%}", f"{row.error:.2g}")
            )
            for row in self.rows
        ]
        facts = (
            ("norm", f"{self.norm:.4g}, of ΔW in weight units"),
            ("kept", f"{self.energy:.2%} of the energy, error {self.error:.2g}"),
        )
        table = weighed_table(rows, ("energy", "error"))
        return Card(f"{len(rows)} tensors", facts, (*kinds_of(rows), table))
