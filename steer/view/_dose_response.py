"""What a measure does as a coefficient is turned."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steer._check import as_list
from steer.errors import SelectionError
from steer.measure._dose import Point, dose_chart, dose_curves, ends_of, measure_of
from steer.show import Chart, Result, Row
from steer.view._base import View
from steer.view._rows import column, ends, rows_of


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class DoseResponse(View):
    """Curves of a measure against a coefficient.

    Args:
        curves: By name, points of coefficient, value, and the ends of its 95% interval (NaN where
            there is none), by rising coefficient. A value is NaN or infinite where the model
            overflowed.
        measure: What was measured.
        coefficient: Whose coefficient.
    """

    curves: Mapping[str, tuple[Point, ...]]
    measure: str
    coefficient: str

    @property
    def rows(self) -> list[Row]:
        """One row per curve and coefficient."""
        return [
            {"curve": name, "coefficient": c, "value": value, "low": low, "high": high}
            for name, points in self.curves.items()
            for c, value, low, high in points
        ]

    @property
    def title(self) -> str:
        """Measure and coefficient, and how many values are not finite."""
        lost = sum(len(_lost(points)) for points in self.curves.values())
        said = f" · {lost} of the values not finite" if lost else ""
        return f"Dose-response · {self.measure} against {self.coefficient}{said}"

    @property
    def panels(self) -> Mapping[str, Chart]:
        """All curves, with intervals as bands; crosses at the foot where a value is not finite."""
        return {"curves": dose_chart(self.curves, self.measure, self.coefficient)}


def _lost(points: Sequence[Point]) -> list[float]:
    """Return the coefficients at which the value is not finite."""
    return [c for c, value, _, _ in points if not math.isfinite(value)]


def dose_response(
    results: Result | Sequence[Mapping[str, Any]],
    values: str | Sequence[str] | None = None,
    *,
    coefficient: str | None = None,
    on: str | None = None,
) -> DoseResponse:
    """Return how measured numbers follow one coefficient.

    Args:
        results: What `steer.sweep` returned, or rows with a coefficient and numbers; the
            rows of `Steerability.curve`, for instance. The interval of a number `x` is in the
            columns `x.low` and `x.high`, that of `value` and `accuracy` in `low` and `high`. A
            number may be NaN or infinite, as in a sweep where the model overflows: the line has a
            gap there, and a cross at the foot of the picture.
        values: Names of the numbers; by default those that have an interval.
        coefficient: The column of the coefficient, or the domain whose coefficient it is; by
            default the only one that takes several values.
        on: The domain of the data; by default every one has its own curves.

    Returns:
        The curves.

    Raises:
        SelectionError: There is no such column, a row lacks a number, a coefficient is not finite,
            or several rows have one coefficient.
    """
    rows = [row for row in rows_of(results) if on is None or row.get("on") == on]
    if not rows:
        raise SelectionError(
            "there is nothing to draw",
            found=f"no rows, on={on!r}",
            expected="at least one row",
            do="check the domain's name",
        )
    along = _column(rows, coefficient)
    wanted = _values(rows, values)
    column(rows, along)  # refuses what is no number, as the next lines do
    for name in wanted:
        column(rows, name, finite=False)
        for end in ends_of(name):
            ends(rows, end)
    parts = ["on"] if len({str(row.get("on")) for row in rows}) > 1 else []
    curves = dose_curves(rows, along, wanted, parts)
    _check_single(curves, along)
    measure = measure_of(wanted)
    measure = str(rows[0]["measure"]) if measure == "value" and "measure" in rows[0] else measure
    return DoseResponse(curves, measure, along.replace("coefficient.", "coefficient of "))


def _column(rows: Sequence[Mapping[str, Any]], wanted: str | None) -> str:
    """Return the column of the coefficient."""
    every = [name for name in rows[0] if name.split(".")[0] == "coefficient"]
    if wanted is not None:
        found = [name for name in every if name in (wanted, f"coefficient.{wanted}")]
    else:
        turned = [name for name in every if len(set(column(rows, name))) > 1]
        found = turned or every
    if len(found) != 1:
        raise SelectionError(
            "the coefficient to draw is ambiguous",
            found=f"coefficient={wanted!r} among columns {every}",
            expected="one",
            do="name the domain: coefficient='medical'",
        )
    return found[0]


def _values(rows: Sequence[Mapping[str, Any]], wanted: str | Sequence[str] | None) -> list[str]:
    """Return the names of the numbers that are drawn."""
    have = list(rows[0])
    if wanted is None:
        names = [name for name in have if f"{name}.low" in have]
        names = names or [name for name in ("value", "accuracy") if name in have]
    else:
        names = [wanted] if isinstance(wanted, str) else as_list("values", wanted)
    missing = [name for name in names if name not in have]
    if missing or not names:
        raise SelectionError(
            "there is no such number",
            found=f"{missing or wanted!r}",
            expected=f"some of {have}",
            do="name a column: values='accuracy'",
        )
    return list(dict.fromkeys(names))


def _check_single(curves: Mapping[str, Sequence[Point]], along: str) -> None:
    for name, points in curves.items():
        places = [point[0] for point in points]
        if len(set(places)) < len(places):
            raise SelectionError(
                "a curve has several values for one coefficient",
                found=f"{name!r}: {len(places)} rows, {len(set(places))} values of {along}",
                expected="one row per coefficient",
                do="keep the rows of one layer, scope and setting of the other domains",
            )
