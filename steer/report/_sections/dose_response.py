"""What a measure does as each coefficient is turned, the others being 0."""

from collections.abc import Iterator, Mapping
from typing import Any

from steer.measure import Sweep
from steer.report._charts.lines import lines
from steer.report._html import figure, figures, numbers, paragraph
from steer.view import DoseResponse
from steer.view import dose_response as curves_of

_SHARES = ("accuracy (share)", "share")


def sweep(result: Sweep) -> str:
    """Return a picture for each domain's coefficient, layer, scope and measured number.

    Args:
        result: What `steer.sweep` returned; settings in which several domains are turned
            at once, or at which the model overflows, are not shown.
    """
    found = list(_curves(result))
    if not found:
        return paragraph(
            "In no setting of this sweep is one domain turned alone, with finite numbers."
        )
    pictures = [figure(_picture(curves), f"{curves.title}{where}") for where, curves in found]
    rows = [row for where, curves in found for row in _named(where, curves)]
    return figures(pictures) + numbers(rows)


def curve(result: DoseResponse) -> str:
    """Return a picture of curves that have been put together already.

    Args:
        result: What `steer.view.dose_response` returned.
    """
    return figure(_picture(result), result.title) + numbers(result.rows)


def _curves(result: Sweep) -> Iterator[tuple[str, DoseResponse]]:
    """Yield for each place and domain where it is and what is measured there."""
    places: dict[tuple[Any, Any], list[Mapping[str, Any]]] = {}
    for row in result.rows:
        if any(value != value for value in row.values()):  # NaN
            continue
        places.setdefault((row["layer"], row["scope"]), []).append(row)
    for (layer, scope), rows in places.items():
        where = "" if layer is None else f", layer {layer}"
        where += "" if scope is None else f", scope {scope}"
        for domain in result.domains:
            others = [f"coefficient.{d}" for d in result.domains if d != domain]
            alone = [row for row in rows if not any(row[name] for name in others)]
            if len({row[f"coefficient.{domain}"] for row in alone}) > 1:
                for names in _numbers(alone[0]):
                    yield where, curves_of(alone, names, coefficient=domain)


def _numbers(row: Mapping[str, Any]) -> list[list[str]]:
    """Return the numbers that are drawn, those of one picture together."""
    if "accuracy" in row:
        return [["accuracy"]]
    shares = [name for name in row if f"{name}.low" in row]
    known = {"layer", "scope", "on", "n"}
    return [shares] if shares else [[n] for n in row if n not in known and "coefficient." not in n]


def _named(where: str, curves: DoseResponse) -> list[dict[str, Any]]:
    return [{"turned": f"{curves.coefficient}{where}", **row} for row in curves.rows]


def _picture(curves: DoseResponse) -> str:
    places = [point[0] for points in curves.curves.values() for point in points]
    return lines(
        curves.curves,
        f"{curves.coefficient} (dimensionless)",
        curves.measure,
        share=curves.measure in _SHARES,
        unsteered=0.0 if min(places) <= 0.0 <= max(places) else None,
    )
