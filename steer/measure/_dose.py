"""Curves of numbers against one coefficient, from the rows of a sweep or others like them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from steer.show import Curves

Point = tuple[float, float, float, float]  # coefficient, value, low, high
_Rows = Sequence[Mapping[str, Any]]
_UNITS = {
    "accuracy": "accuracy (share)",
    "margin": "margin (nats)",
    "likelihood": "log-probability (nats)",
}
_SHARES = ("accuracy (share)", "share")


def ends_of(name: str) -> tuple[str, str]:
    """Return the columns with the interval of a number."""
    return ("low", "high") if name in ("value", "accuracy") else (f"{name}.low", f"{name}.high")


def measure_of(names: Sequence[str]) -> str:
    """Return what numbers on one axis are, with their unit."""
    return _UNITS.get(names[0], names[0]) if len(names) == 1 else "share"


def dose_curves(
    rows: _Rows, along: str, names: Sequence[str], parts: Sequence[str]
) -> dict[str, tuple[Point, ...]]:
    """Return curves of numbers, one for each and for each value of the columns that tell rows."""
    found: dict[str, list[Point]] = {}
    for row in rows:
        words = [str(row[kind]) if kind == "on" else f"{kind} {row[kind]}" for kind in parts]
        for name in names:
            ends = (row.get(end) for end in ends_of(name))
            low, high = (math.nan if end is None else float(end) for end in ends)
            label = ", ".join([*words, *([name] if len(names) > 1 or not words else [])])
            point = float(row[along]), float(row[name]), low, high
            found.setdefault(label, []).append(point)
    return {label: tuple(sorted(points)) for label, points in found.items()}


def dose_chart(curves: Mapping[str, tuple[Point, ...]], measure: str, along: str) -> Curves:
    """Return curves as a chart, in which 0, the unsteered model, is marked."""
    places = [point[0] for points in curves.values() for point in points]
    return Curves(
        measure,
        f"{along} (dimensionless)",
        curves,
        marked=0.0 if min(places) <= 0.0 <= max(places) else None,
        marked_name="unsteered",
        limits=(-0.03, 1.03) if measure in _SHARES else (None, None),
    )


def charts_of(rows: _Rows, domains: Sequence[str]) -> Iterator[Curves]:
    """Yield a chart for each domain that is turned alone and each number, where it is finite."""
    parts = [name for name in ("on", "layer", "scope") if len({row[name] for row in rows}) > 1]
    for domain in domains:
        others = [f"coefficient.{d}" for d in domains if d != domain]
        for names in _numbers(rows[0]):
            alone = [
                row
                for row in rows
                if not any(row[name] for name in others)
                and all(math.isfinite(row[name]) for name in names)
            ]
            if len({row[f"coefficient.{domain}"] for row in alone}) > 1:
                curves = dose_curves(alone, f"coefficient.{domain}", names, parts)
                yield dose_chart(curves, measure_of(names), f"coefficient of {domain}")


def _numbers(row: Mapping[str, Any]) -> list[list[str]]:
    """Return the numbers that are drawn, those of one chart together."""
    if "accuracy" in row:
        return [["accuracy"]]
    shares = [name for name in row if f"{name}.low" in row]
    known = {"layer", "scope", "on", "n"}
    return [shares] if shares else [[n] for n in row if n not in known and "coefficient." not in n]
