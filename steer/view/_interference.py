"""What each vector does to each domain, as a matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steer.errors import SelectionError
from steer.show import Chart, Result, Row
from steer.view._base import View
from steer.view._charts import around_zero, matrix
from steer.view._checks import check_kind
from steer.view._rows import column, ends, rows_of


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Interference(View):
    """The change on each domain when one vector alone is at work.

    Args:
        values: `[domain domain]`: steered domains down, affected ones across; NaN where nothing
            was measured.
        low: Lower ends of the 95% intervals; NaN where there is none.
        high: Upper ends.
        steered: The steered domains.
        affected: The domains measured on.
        measure: What was measured.
    """

    values: Float[Tensor, "domain domain"]
    low: Float[Tensor, "domain domain"]
    high: Float[Tensor, "domain domain"]
    steered: tuple[str, ...]
    affected: tuple[str, ...]
    measure: str

    @property
    def rows(self) -> list[Row]:
        """One row per cell: value and interval."""
        return [
            {
                "steered": s,
                "affected": a,
                "value": float(self.values[i, j]),
                "low": float(self.low[i, j]),
                "high": float(self.high[i, j]),
            }
            for i, s in enumerate(self.steered)
            for j, a in enumerate(self.affected)
        ]

    @property
    def title(self) -> str:
        """What was measured."""
        return f"Interference · {self.measure}"

    @property
    def panels(self) -> Mapping[str, Chart]:
        """The matrix; cells whose interval holds 0 are written in brackets."""
        texts = [
            [self._text(i, j) for j in range(len(self.affected))] for i in range(len(self.steered))
        ]
        names = {"down": "steered", "across": "affected"}
        title = "brackets: the 95% interval holds 0" if self.values.isfinite().any() else ""
        shown = matrix(
            self.measure,
            self.values,
            self.steered,
            self.affected,
            around_zero(self.values),
            texts=texts,
            title=title,
            **names,
        )
        return {"interference": shown}

    def _text(self, i: int, j: int) -> str:
        value = float(self.values[i, j])
        if value != value:
            return ""
        unsure = float(self.low[i, j]) <= 0.0 <= float(self.high[i, j])
        return f"({value:+.2g})" if unsure else f"{value:+.2g}"


def interference(
    effects: Result | Sequence[Mapping[str, Any]], *, measure: str | None = None
) -> Interference:
    """Return the matrix of what each steered domain does to each affected one.

    Args:
        effects: What `steer.measure.off_target` returned; or rows with `steered`, `affected`,
            `value`, which must be finite, and, where known, `low`, `high` and `measure`. A cell
            without a row stays empty.
        measure: Which measure, if the rows hold several: a part of its name.

    Returns:
        The matrix, with intervals. Domains affected stand in the order of those steered, so that
        what a vector does to its own domain is the diagonal; the others follow.

    Raises:
        SelectionError: There are no rows, a column is missing, a value is not a finite number,
            there are several measures and none is named, or two rows for one cell.
    """
    if measure is not None:
        check_kind("measure", measure, str)
    rows = rows_of(effects)
    kept = [r for r in rows if measure is None or measure in str(r.get("measure", ""))]
    names = list(dict.fromkeys(str(r.get("measure", "change")) for r in kept or rows))
    whole = all({"steered", "affected", "value"} <= r.keys() for r in kept)
    cells = {(str(r["steered"]), str(r["affected"])): r for r in kept} if whole else {}
    if not cells or len(names) > 1 or len(cells) < len(kept):
        raise SelectionError(
            "these rows do not form a matrix",
            found=f"{len(kept)} rows, measures {names}, columns {list(kept[0]) if kept else []}",
            expected="one row for each steered and affected domain, with a value",
            do=f"name one measure: measure={names[0]!r}" if names else "pass rows",
        )
    steered = tuple(dict.fromkeys(s for s, _ in cells))
    measured = dict.fromkeys(a for _, a in cells)
    affected = (*(n for n in steered if n in measured), *(n for n in measured if n not in steered))

    def placed(numbers: Sequence[float]) -> Tensor:
        found = dict(zip(cells, numbers, strict=True))
        rows = [[found.get((s, a), torch.nan) for a in affected] for s in steered]
        return torch.tensor(rows, dtype=torch.float64)

    value, low, high = column(kept, "value"), ends(kept, "low"), ends(kept, "high")
    return Interference(placed(value), placed(low), placed(high), steered, affected, names[0])
