"""What became of each tensor when an alignment vector took its form."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_SHOWN = 20  # rows at each end of a long table
_HEAD = ("parameter", "shape", "form", "norm", "energy", "error")


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
        """How it is held: `rank 16`, `dense`, or `dense (3-D)` for a block of experts."""
        if self.rank is not None:
            return f"rank {self.rank}"
        return "dense" if len(self.shape) <= 2 else f"dense ({len(self.shape)}-D)"


@dataclass(frozen=True, slots=True)
class TensorTable:
    """All tensors of a vector; it prints as a table.

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

    def __repr__(self) -> str:
        body: list[tuple[str, ...]] = [
            (row.name, "×".join(map(str, row.shape)), row.form, *_figures(row)) for row in self.rows
        ]
        if len(body) > 2 * _SHOWN:
            body = [*body[:_SHOWN], ("…", *[""] * 5), *body[-_SHOWN:]]
        total = (f"{len(self.rows)} tensors", "", "", *_figures(self))
        lines = [_HEAD, *body, total]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(_line(line, widths) for line in lines)


def _figures(row: "TensorRow | TensorTable") -> tuple[str, str, str]:
    return f"{row.norm:.4g}", f"{row.energy:.2%}", f"{row.error:.2g}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    texts = [cell.ljust(width) for cell, width in zip(cells[:3], widths[:3], strict=True)]
    figures = [cell.rjust(width) for cell, width in zip(cells[3:], widths[3:], strict=True)]
    return "  ".join([*texts, *figures]).rstrip()
