"""Curves with their intervals as bands."""

import math
from collections.abc import Mapping, Sequence

from steer.report._charts.svg import Frame, Scale, around, band, marker, path, rule, short, write

Point = tuple[float, float, float, float]  # place, value, low, high

_WIDTH, _HEIGHT, _LEGEND = 560.0, 290.0, 130.0
_NAME = 18  # characters in the legend


def lines(
    curves: Mapping[str, Sequence[Point]],
    x_label: str,
    y_label: str,
    *,
    share: bool = False,
    unsteered: float | None = None,
) -> str:
    """Return a picture of curves; each point at `unsteered` is drawn hollow.

    Args:
        curves: By name, points of place, value and the ends of its interval (NaN where there is
            none), by rising place. Values that are not finite are left out.
        x_label: What is along, with unit.
        y_label: What is up, with unit.
        share: Whether values are shares, for which the axis goes from 0 to 1.
        unsteered: The place of the unsteered model.
    """
    kept = {n: [p for p in points if math.isfinite(p[1])] for n, points in curves.items()}
    every = [p for points in kept.values() for p in points]
    low, high = (-0.03, 1.03) if share else around([v for p in every for v in p[1:]])
    right = _WIDTH - (_LEGEND if len(kept) > 1 else 14)
    frame = Frame(
        _WIDTH,
        _HEIGHT,
        Scale(*around([p[0] for p in every], 0.03), 58, right),
        Scale(low, high, _HEIGHT - 42, 18),
    )
    parts = [frame.axes(x_label, y_label)]
    if unsteered is not None:
        at = frame.x(unsteered)
        parts.append(rule(at, frame.y.start, at, frame.y.end, dashed=True))
        parts.append(write(at, 12, "unsteered", anchor="middle", size=10))
    for k, (name, points) in enumerate(kept.items()):
        parts.append(_curve(frame, points, k, unsteered))
        if len(kept) > 1:
            y = 30 + 18 * k
            parts.append(path([(right + 8, y - 4), (right + 28, y - 4)], k))
            parts.append(marker(right + 18, y - 4, k) + write(right + 33, y, short(name, _NAME)))
    what = f"{y_label} against {x_label}: {', '.join(kept)}"
    return frame.picture(parts, what)


def _curve(frame: Frame, points: Sequence[Point], k: int, unsteered: float | None) -> str:
    sure = [p for p in points if math.isfinite(p[2]) and math.isfinite(p[3])]
    lower = [(frame.x(x), frame.y(low)) for x, _, low, _ in sure]
    upper = [(frame.x(x), frame.y(high)) for x, _, _, high in sure]
    out = [band(lower, upper, k), path([(frame.x(x), frame.y(v)) for x, v, _, _ in points], k)]
    for x, value, *_ in points:
        plain = x == unsteered
        scale = 1.5 if plain else 1.0
        out.append(marker(frame.x(x), frame.y(value), k, hollow=plain, scale=scale))
    return "".join(out)
