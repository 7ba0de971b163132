"""Numbers with their intervals, one below the other."""

import math
from collections.abc import Mapping

from steer.report._charts.svg import Frame, Scale, around, marker, rule, short, write

_WIDTH, _LEFT, _LINE = 560.0, 130.0, 26.0
_NAME = 18  # characters


def intervals(
    values: Mapping[str, tuple[float, float, float]], x_label: str, *, share: bool = False
) -> str:
    """Return a picture of numbers with their intervals; the first one is marked apart.

    Args:
        values: By name: the number, and the ends of its interval (NaN where there is none).
        x_label: What they are, with unit.
        share: Whether they are shares, for which the axis goes from 0 to 1.
    """
    low, high = (-0.02, 1.02) if share else around([v for found in values.values() for v in found])
    height = 46 + _LINE * len(values)
    frame = Frame(_WIDTH, height, Scale(low, high, _LEFT, _WIDTH - 14), Scale(0, 1, height - 42, 6))
    bottom = frame.y.start
    parts = [write((_LEFT + frame.x.end) / 2, height - 6, x_label, anchor="middle")]
    for tick in frame.x.ticks:
        parts.append(rule(frame.x(tick), bottom, frame.x(tick), 4, faint=True))
        parts.append(write(frame.x(tick), bottom + 16, f"{tick:.4g}", anchor="middle"))
    for k, (name, (value, start, end)) in enumerate(values.items()):
        y = 18 + _LINE * k
        parts.append(write(_LEFT - 8, y + 4, short(name, _NAME), anchor="end"))
        if math.isfinite(start) and math.isfinite(end):
            parts.append(rule(frame.x(start), y, frame.x(end), y))
        if math.isfinite(value):
            parts.append(marker(frame.x(value), y, 1 if k == 0 else 0, scale=1.3))
    return frame.picture(parts, f"{x_label}: {', '.join(values)}")
