"""What settings reach against what they cost, with the budget, the front and the choice."""

import math
from collections.abc import Sequence

from steer.report._charts.svg import Frame, Scale, around, marker, path, rule, write

_WIDTH, _HEIGHT = 560.0, 320.0
_TRIED, _FRONT, _CHOSEN = 5, 2, 1  # categories


def scatter(
    points: Sequence[tuple[float, float]],
    front: Sequence[tuple[float, float]],
    chosen: tuple[float, float] | None,
    budget: float | None,
    x_label: str,
    y_label: str,
) -> str:
    """Return a picture of settings by cost and objective; costs are on a square-root axis.

    Args:
        points: Cost and objective of every setting. Those that are not finite are left out, and
            of those that fall on one spot one is drawn.
        front: Those that none is beyond, by rising cost.
        chosen: That which was chosen.
        budget: The most that a setting may cost.
        x_label: What is along, with unit.
        y_label: What is up, with unit.
    """
    seen = [p for p in points if all(map(math.isfinite, p))]
    costs = [cost for cost, _ in seen] + ([budget] if budget is not None else [])
    frame = Frame(
        _WIDTH,
        _HEIGHT,
        Scale(0.0, 1.08 * max(costs, default=0.0) or 1.0, 58, _WIDTH - 14, root=True),
        Scale(*around([value for _, value in seen]), _HEIGHT - 42, 40),
    )
    parts = [frame.axes(f"{x_label}, square-root scale", y_label), _legend(budget)]
    if budget is not None:
        at = frame.x(budget)
        parts.append(rule(at, frame.y.start, at, frame.y.end, dashed=True))
        side = "end" if at > _WIDTH / 2 else "start"
        parts.append(
            write(at + (-5 if side == "end" else 5), frame.y.end - 4, "budget", anchor=side)
        )
    spots = dict.fromkeys((round(frame.x(x), 1), round(frame.y(y), 1)) for x, y in seen)
    parts += [marker(x, y, _TRIED) for x, y in spots]
    way = [(frame.x(x), frame.y(y)) for x, y in front if math.isfinite(x) and math.isfinite(y)]
    parts += [path(way, _FRONT), *(marker(x, y, _FRONT) for x, y in way)]
    if chosen is not None and all(map(math.isfinite, chosen)):
        place = frame.x(chosen[0]), frame.y(chosen[1])
        parts.append(marker(*place, _CHOSEN, hollow=True, scale=2.2) + marker(*place, _CHOSEN))
    return frame.picture(parts, f"{y_label} against {x_label} of {len(seen)} settings")


def _legend(budget: float | None) -> str:
    entries = [(_TRIED, "tried"), (_FRONT, "Pareto front"), (_CHOSEN, "chosen")]
    out, x = [], 66.0
    for index, name in entries:
        out.append(marker(x, 12, index) + write(x + 9, 16, name))
        x += 30 + 7 * len(name)
    if budget is not None:
        out.append(
            rule(x - 6, 12, x + 14, 12, dashed=True) + write(x + 19, 16, f"limit {budget:g}")
        )
    return "".join(out)
