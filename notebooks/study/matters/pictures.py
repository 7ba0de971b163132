"""The pictures of what matters, from its rows alone."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from notebooks.study.matters.table import compared
from notebooks.study.rows import Row, rows
from steer.measure import mean_of
from steer.show import Chart, Curves, Matrix, Series
from steer.view._base import figure_of

GAIN = "gain of margin (nats per token)"
_KINDS = {
    "unsteered": "none or random",
    "random": "none or random",
    **{name: name for name in ("mean", "gradient", "mixed", "fisher", "layers", "generated")},
}
_EDGE = 1.0  # of the colours of a map


def likelihood_and_text() -> Any:
    """Return a figure: gain and judged share of directions, a chart for each behaviour and layer."""
    explored = rows("directions")
    charts: list[Chart] = []
    for place in dict.fromkeys((row["behaviour"], row["layer"]) for row in explored):
        points: dict[str, list[tuple[float, float]]] = {kind: [] for kind in _KINDS.values()}
        for row in compared():
            kind = _KINDS.get(row["method"].split()[0])
            if kind and (row["behaviour"], row["layer"]) == place:
                points[kind].append((fmean(row["gains"]), row["judged"]))
        series = {k: Series(tuple(sorted(p)), joined=False) for k, p in points.items()}
        title = "{}, layer {}".format(*place)
        charts.append(Curves("judged share", GAIN, series, limits=(-0.03, 1.03), title=title))
    return figure_of([charts])


def places() -> Any:
    """Return a figure: a map of position and layer for each behaviour, PaLRS's pick with a star."""
    return figure_of([[_map(b)] for b in _behaviours(rows("map"))])


def _map(behaviour: str) -> Matrix:
    own = [row for row in rows("map") if row["behaviour"] == behaviour]
    layers = sorted({row["layer"] for row in own})
    positions = tuple(dict.fromkeys(row["position"] for row in own))
    cells = {(row["position"], row["layer"]): row for row in own}
    grid = [[cells.get((position, layer)) for layer in layers] for position in positions]
    return Matrix(
        GAIN,
        positions,
        tuple(map(str, layers)),
        tuple(tuple(fmean(c["gains"]) if c else math.nan for c in line) for line in grid),
        (-_EDGE, _EDGE),
        tuple(tuple(_written(c) for c in line) for line in grid),
        across="layer",
        title=f"{behaviour} (★: what PaLRS's rule picks)",
    )


def _written(cell: Row | None) -> str:
    return f"{fmean(cell['gains']):+.2f}{'★' * cell['palrs']}" if cell else ""


def amounts() -> Any:
    """Return a figure: gain and cosine by number of pairs, a point for each draw."""
    found = rows("pairs")
    charts: list[Chart] = []
    for caption, value in ((GAIN, _gain), ("cosine with the vector of all pairs", _cosine)):
        series = {
            behaviour: Series(
                tuple(sorted((r["pairs"], value(r)) for r in found if r["behaviour"] == behaviour)),
                joined=False,
            )
            for behaviour in _behaviours(found)
        }
        charts.append(Curves(caption, "pairs", series, limits=(0.0, None), whole=True))
    return figure_of([charts])


def doses() -> Any:
    """Return a figure: margin and KL by strength."""
    found = rows("dose")
    margins, kls = {}, {}
    for behaviour in _behaviours(found):
        own = [row for row in found if row["behaviour"] == behaviour]
        each = [(row["times"], mean_of("margin", row["margins"])) for row in own]
        margins[behaviour] = tuple((x, e.value, *e.interval) for x, e in each)
        kls[behaviour] = tuple((row["times"], row["kl_neutral"]) for row in own)
    along = "times the coefficient that spends the budget"
    return figure_of(
        [
            [
                Curves("margin (nats per token)", along, margins, marked=0.0, level=0.0),
                Curves("KL (nats per token)", along, kls, marked=0.0),
            ]
        ]
    )


def inside() -> Any:
    """Return a figure: by layer, the share of the tuned gain that one direction brings."""
    found = rows("inside")
    whole = fmean(next(row["gains"] for row in found if row["layer"] is None))
    own = [row for row in found if row["layer"] is not None]
    series = {
        name: tuple((row["layer"], fmean(row["gains"][name]) / whole) for row in own)
        for name in own[0]["gains"]
    }
    left = tuple((row["layer"], fmean(row["gains_without"]) / whole) for row in own)
    cosines = {"": tuple((row["layer"], row["cosine"]) for row in own)}
    return figure_of(
        [
            [
                Curves(
                    "share of the gain of the tuned vector",
                    "layer",
                    {**series, "tuned, without it": left},
                    level=1.0,
                    whole=True,
                ),
                Curves("cosine with the mean difference", "layer", cosines, level=0.0, whole=True),
            ]
        ]
    )


def _behaviours(found: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["behaviour"] for row in found))


def _gain(row: Row) -> float:
    return fmean(row["gains"])


def _cosine(row: Row) -> float:
    return float(row["cosine"])
