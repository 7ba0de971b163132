"""Rows of a result, as dictionaries, made into a table of a card."""

from collections.abc import Mapping, Sequence
from typing import Any

from steer.show._card import Bar, Cell, Cells, Table, number
from steer.show._chart import scale

_SHOWN, _FOLDED = 40, 200
_COLUMNS = 12  # at either end


def table_of(
    rows: Sequence[Mapping[str, Any]],
    *,
    shown: int = _SHOWN,
    folded: int = _FOLDED,
    none: str = "–",
    caption: str = "",
    folded_up: bool = False,
) -> Table:
    """Return rows as a table; where rows have an interval, it is drawn behind them.

    Of many columns the first and the last are kept, and an empty one says where others are left
    out: rows begin with what they are of, and end with what was measured.
    """
    if not rows:
        return Table((), ())
    names, left_out = _columns(list(rows[0]))
    kept = rows[: shown + folded]
    words = next((k for k, name in enumerate(names) if not _wordy(kept, name)), len(names))
    drawn = _drawn(kept)
    at = names.index("high") + 1 if drawn[0] and "high" in names else len(names)
    cells = []
    for row, bar in zip(kept, drawn, strict=True):
        found = [_cell(row, name, none) for name in names]
        cells.append((*found[:at], *bar, *found[at:]))
    head = (*names[:at], *("" for _ in drawn[0]), *names[at:])
    return Table(
        tuple("…" if name is None else str(name) for name in head),
        tuple(cells[:shown]),
        words,
        tuple(cells[shown:]),
        len(rows) - len(kept),
        f"{caption} {left_out}".strip(),
        folded_up,
    )


def _columns(names: list[str]) -> tuple[list[str | None], str]:
    """Return the columns that are shown, with None for the rest, and what the rest is."""
    rest = names[_COLUMNS:-_COLUMNS]
    if len(rest) < 2:
        return [*names], ""
    said = f"({len(rest)} more columns, from {rest[0]} to {rest[-1]})"
    return [*names[:_COLUMNS], None, *names[-_COLUMNS:]], said


def share_row(name: str, value: float, interval: tuple[float, float], *more: str) -> Cells:
    """Return a row with a share in [0, 1] and its interval, as text and drawn."""
    said = f"{value:.1%} [{interval[0]:.1%}, {interval[1]:.1%}]"
    return (name, Bar(value, 0.0, 1.0, interval), said, *more)


def _cell(row: Mapping[str, Any], name: str | None, none: str) -> str:
    if name is None:
        return ""
    return none if row.get(name) is None else number(row[name])


def _wordy(rows: Sequence[Mapping[str, Any]], name: str | None) -> bool:
    return name is not None and any(isinstance(row.get(name), str) for row in rows)


def _drawn(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Cell, ...]]:
    """Return the interval of each row as a bar, on one scale for rows of one measure."""
    if not all(isinstance(rows[0].get(name), float) for name in ("value", "low", "high")):
        return [() for _ in rows]
    found: dict[object, list[float]] = {}
    for row in rows:
        known = [] if row["value"] is None else [row["value"], row["low"], row["high"]]
        found.setdefault(row.get("measure"), []).extend(known)
    scales = {measure: _scale(values) for measure, values in found.items()}
    return [
        ("",)
        if row["value"] is None
        else (Bar(row["value"], *scales[row.get("measure")], (row["low"], row["high"])),)
        for row in rows
    ]


def _scale(values: Sequence[float]) -> tuple[float, float]:
    low, high = scale(values)
    share = low == 0 and 0.25 <= high <= 1
    return low, 1.0 if share else high
