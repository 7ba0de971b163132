"""Rows of numbers, for views of tables."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from steer._check import as_list
from steer.errors import SelectionError
from steer.show import Result


def rows_of(results: Result | Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows of a result, or rows that are given."""
    given = results.rows if isinstance(results, Result) else results
    rows: list[Mapping[str, Any]] = as_list("rows", given)
    odd = [r for r in rows if not isinstance(r, Mapping) or not all(isinstance(n, str) for n in r)]
    if odd:
        raise SelectionError(
            "a row is not a mapping of columns",
            found=f"{type(odd[0]).__name__} {odd[0]!r}"[:120],
            expected="one dictionary per row, by the names of its columns",
            do="of a pandas table: table.to_dict('records')",
        )
    return rows


def as_float(value: object) -> float | None:
    """Return a value as a float; None if it is no number."""
    try:
        return None if isinstance(value, str | bytes) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def column(rows: Iterable[Mapping[str, Any]], name: str, *, finite: bool = True) -> list[float]:
    """Return the numbers of a column."""
    found = []
    for k, row in enumerate(rows):
        value = as_float(row.get(name))
        if value is None or (finite and not math.isfinite(value)):
            raise SelectionError(
                f"row {k} (counted from 0) has no number {name!r} that can be drawn",
                found=f"{name!r}: {row[name]!r}"[:120] if name in row else f"columns {list(row)}",
                expected="a finite number" if finite else "a number",
                do="leave the row out, or give its number",
            )
        found.append(value)
    return found


def ends(rows: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    """Return the ends of intervals in a column, NaN where a row has none."""
    known = ({name: math.nan if row.get(name) is None else row[name]} for row in rows)
    return column(known, name, finite=False)
