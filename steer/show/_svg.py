"""Charts as inline SVG, without scripts, fonts or addresses.

Text and axes take the colour of the page around them.
"""

import math
from collections.abc import Sequence

from steer.show._card import Bar
from steer.show._chart import Bars, Chart, Curves, Matrix, Point, Series
from steer.show._look import DASHES, PALETTE, category, diverging, hexadecimal, ink
from steer.show._markup import text
from steer.show._scale import Scale, around

_CELL_WIDTH, _CELL_HEIGHT = 110.0, 12.0
_BARS_WIDTH, _BARS_HEIGHT, _LEFT, _FOOT, _TOP = 330.0, 84.0, 46.0, 16.0, 8.0
_WIDTH, _HEIGHT = 400.0, 226.0
_MOST_BARS, _MOST_SERIES, _MOST_POINTS = 160, 12, 200
_NAME = 28  # characters of a name
_CORNERS: dict[str, tuple[tuple[float, float], ...]] = {
    "^": ((0, -4), (4, 3.5), (-4, 3.5)),
    "s": ((-3, -3), (3, -3), (3, 3), (-3, 3)),
    "D": ((0, -4.4), (4.4, 0), (0, 4.4), (-4.4, 0)),
    "v": ((0, 4), (4, -3.5), (-4, -3.5)),
    "P": ((-1, -4), (1, -4), (1, -1), (4, -1), (4, 1), (1, 1), (1, 4), (-1, 4), (-1, 1), (-4, 1),
          (-4, -1), (-1, -1)),
    "X": ((-3, -4), (0, -1), (3, -4), (4, -3), (1, 0), (4, 3), (3, 4), (0, 1), (-3, 4), (-4, 3),
          (-1, 0), (-4, -3)),
}  # fmt: skip


def bar_svg(bar: Bar) -> str:
    """Return a bar as a picture for a cell of a table."""
    if not bar.drawn:
        return ""
    zero, at = (bar.share(v) * _CELL_WIDTH for v in (0.0, bar.value))
    middle, says = _CELL_HEIGHT / 2, f"{bar.value:.4g}"
    if bar.ends is not None and all(map(math.isfinite, bar.ends)):
        low, high = (bar.share(v) * _CELL_WIDTH for v in bar.ends)
        drawn = (
            _line(0, middle, _CELL_WIDTH, middle, 0.25)
            + f"<line x1='{low:.1f}' y1='{middle:g}' x2='{high:.1f}' y2='{middle:g}' "
            f"stroke='{PALETTE[0]}' stroke-width='3' stroke-opacity='.55'/>"
            f"<circle cx='{at:.1f}' cy='{middle:g}' r='3.5' fill='{PALETTE[0]}'/>"
        )
        says += f", interval {bar.ends[0]:.4g} to {bar.ends[1]:.4g}"
    else:
        hue = PALETTE[1] if bar.value < 0 else PALETTE[0]
        drawn = _rectangle(min(zero, at), 2, abs(at - zero), _CELL_HEIGHT - 4, hue)
        drawn += _line(zero, 0, zero, _CELL_HEIGHT, 0.5)
    return _picture(_CELL_WIDTH, _CELL_HEIGHT, [drawn], says)


def chart_svg(chart: Chart) -> str:
    """Return a chart as a figure; empty where there is too little to draw."""
    if isinstance(chart, Bars):
        return _bars(chart)
    return _curves(chart) if isinstance(chart, Curves) else _matrix(chart)


def _bars(chart: Bars) -> str:
    values = chart.values[:_MOST_BARS]
    low, high = chart.shown
    if not 0 < high - low < math.inf or sum(map(math.isfinite, values)) < 2:
        return ""
    up = Scale(low, high, _BARS_HEIGHT - _FOOT, _TOP)
    step = min((_BARS_WIDTH - _LEFT) / len(values), 26.0)
    base = up(chart.base)
    parts = [_line(_LEFT, base, _LEFT + step * len(values), base, 0.5)]
    for k, value in enumerate(values):
        if not math.isfinite(value):
            continue
        hue = PALETTE[1] if k == chart.marked else PALETTE[0]
        hue = chart.colours[k] if chart.colours else hue
        at, x = up(min(max(value, low), high)), _LEFT + k * step
        outline = " stroke='currentColor' stroke-opacity='.4'" if chart.colours else ""
        name = f"<title>{text(f'{chart.labels[k]}: {value:.4g}')}</title>"
        top, tall = min(at, base), abs(at - base)
        parts.append(_rectangle(x + step * 0.1, top, step * 0.8, tall, hue, name, outline))
        if not low <= value <= high:
            edge = _TOP - 1 if value > high else _BARS_HEIGHT - _FOOT + 8
            parts.append(_write(x + step / 2, edge, "▲" if value > high else "▼"))
    parts += [_write(_LEFT - 5, up(v) + 3, _tick(v), "end") for v in sorted({low, high})]
    if chart.split is not None and chart.split[0] < len(values):
        at = _LEFT + chart.split[0] * step
        parts.append(_line(at, _TOP, at, _BARS_HEIGHT - _FOOT, 0.6, "4 3"))
        parts.append(_write(at + 3, _BARS_HEIGHT - 3, f"{chart.split[1]} →", "start"))
    else:
        for k in sorted({0, len(values) - 1} if chart.marked is None else {chart.marked}):
            label = chart.labels[k][:12]
            parts.append(_write(_LEFT + (k + 0.5) * step, _BARS_HEIGHT - 3, label))
    said = chart.caption + (f" by {chart.along}" if chart.along else "")
    said += f" (first {len(values)})" if len(values) < len(chart.values) else ""
    return _figure(said, _picture(_BARS_WIDTH, _BARS_HEIGHT, parts, said))


def _curves(chart: Curves) -> str:
    drawn = {n: s for n, s in list(chart.drawn.items())[:_MOST_SERIES] if s.points}
    every = [p for one in drawn.values() for p in _thinned(one.points) if math.isfinite(p[0])]
    finite = [p for p in every if math.isfinite(p[1])]
    if len({p[0] for p in finite}) < 2:
        return ""
    x, y = _scales(chart, every)
    parts = [*_grid(chart, x, y, sorted({p[0] for p in every}))]
    for name, one in drawn.items():
        parts += _series(name, one, chart, x, y)
    more = len(chart.series) - _MOST_SERIES
    also = f" (first {_MOST_SERIES} of {len(chart.series)})" if more > 0 else ""
    title = f" · {chart.title}" if chart.title else ""
    said = f"{chart.caption} against {chart.along}{title}{also}"
    picture = _picture(_WIDTH, _HEIGHT, parts, f"{said}: {', '.join(drawn)}")
    return _figure(said, picture, _legend({n: s for n, s in drawn.items() if n}))


def _scales(chart: Curves, points: Sequence[Point]) -> tuple[Scale, Scale]:
    """Return the scales of the horizontal and of the vertical axis."""
    places = [p[0] for p in points] + ([] if chart.marked is None else [chart.marked])
    low, high = around([v for p in points for v in p[1:]])
    least, most = chart.limits
    low, high = low if least is None else least, high if most is None else most
    left, right = around(places, 0.03)
    if chart.root:
        left, right = 0.0, 1.08 * max(places)
    return (
        Scale(left, right, _LEFT, _WIDTH - 8, chart.root),
        Scale(low, high if high > low else low + 1, _HEIGHT - 34, _TOP + 6),
    )


def _grid(chart: Curves, x: Scale, y: Scale, places: Sequence[float]) -> list[str]:
    """Return the axes with their ticks and labels, and what is highlighted on them."""
    whole = places[:: max(1, -(-len(places) // 12))]
    parts = [
        _line(x.start, y.start, x.end, y.start, 0.6),
        _line(x.start, y.start, x.start, y.end, 0.6),
    ]
    for value in whole if chart.whole else x.ticks:
        parts.append(_line(x(value), y.start, x(value), y.end, 0.13))
        parts.append(_write(x(value), y.start + 13, _tick(value)))
    for value in y.ticks:
        parts.append(_line(x.start, y(value), x.end, y(value), 0.13))
        parts.append(_write(x.start - 5, y(value) + 3, _tick(value), "end"))
    along = f"{chart.along}, square-root scale" if chart.root else chart.along
    parts.append(_write((x.start + x.end) / 2, _HEIGHT - 5, along))
    if chart.level is not None:
        parts.append(_line(x.start, y(chart.level), x.end, y(chart.level), 0.6, "2 3"))
    if chart.marked is not None:
        at = x(chart.marked)
        parts.append(_line(at, y.start, at, y.end, 0.6, "4 3"))
        side = "end" if at > 0.8 * _WIDTH else "start"
        if chart.marked_name:
            parts.append(
                _write(at + (-4 if side == "end" else 4), y.end + 4, chart.marked_name, side)
            )
    return parts


def _series(name: str, one: Series, chart: Curves, x: Scale, y: Scale) -> list[str]:
    """Return band, lines and markers of a series, and crosses where it is not finite."""
    points = _thinned(one.points)
    parts, run = [_band(one, points, x, y)], []
    for point in [*points, (math.nan, math.nan)]:
        if all(map(math.isfinite, point[:2])):
            run.append(f"{x(point[0]):.1f},{y(point[1]):.1f}")
            continue
        if one.joined and len(run) > 1:
            parts.append(_path(" ".join(run), one))
        run = []
        if math.isfinite(point[0]):
            parts.append(_write(x(point[0]), y.start - 3, "×"))
    spots: dict[tuple[str, str], str] = {}
    for point in points:
        if all(map(math.isfinite, point[:2])):
            says = text(f"{name} {point[0]:.4g}: {point[1]:.4g}".strip())
            hollow = one.hollow or (one.joined and point[0] == chart.marked)
            at = x(point[0]), y(point[1])
            spots[f"{at[0]:.1f}", f"{at[1]:.1f}"] = _marker(*at, one, hollow, says)
    return [*parts, *([] if one.faint else spots.values())]


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Return every so many points, where they are too dense."""
    return points[:: max(1, -(-len(points) // _MOST_POINTS))]


def _look(one: Series) -> tuple[str, str, str]:
    colour, marker, line = category(one.hue or 0)
    return colour, marker, DASHES[line]


def _band(one: Series, points: Sequence[Point], x: Scale, y: Scale) -> str:
    sure = [p for p in points if len(p) == 4 and all(map(math.isfinite, p))]
    if len(sure) < 2:
        return ""
    edges = [(p[0], p[2]) for p in sure] + [(p[0], p[3]) for p in reversed(sure)]
    around_it = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in edges)
    return f"<polygon points='{around_it}' fill='{_look(one)[0]}' fill-opacity='.18'/>"


def _path(through: str, one: Series) -> str:
    colour, _, dashes = _look(one)
    opacity = " stroke-opacity='.6'" if one.faint else ""
    return (
        f"<polyline points='{through}' fill='none' stroke='{colour}' stroke-width='1.6' "
        f"stroke-dasharray='{dashes}'{opacity}/>"
    )


def _marker(x: float, y: float, one: Series, hollow: bool, says: str = "") -> str:
    colour, marker, _ = _look(one)
    size = 1.5 if hollow and one.joined else 0.9
    look = f"fill='{'none' if hollow else colour}' stroke='{colour}' stroke-width='1.2'"
    look += f" class='steer-series{' steer-hollow' * hollow}'"
    title = f"<title>{says}</title>" if says else ""
    if marker not in _CORNERS:
        return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{3 * size:.1f}' {look}>{title}</circle>"
    corners = " ".join(f"{x + size * a:.1f},{y + size * b:.1f}" for a, b in _CORNERS[marker])
    return f"<polygon points='{corners}' {look}>{title}</polygon>"


def _legend(series: dict[str, Series]) -> str:
    keys = []
    for name, one in series.items():
        drawn = _path("0,5 24,5", one) if one.joined else ""
        drawn += "" if one.faint else _marker(12, 5, one, one.hollow)
        keys.append(
            f"<span class='steer-key'><svg width='24' height='10' aria-hidden='true'>{drawn}</svg> "
            f"{text(_short(name))}</span>"
        )
    return " ".join(keys)


def _matrix(chart: Matrix) -> str:
    if not chart.rows or not chart.columns:
        return ""
    texts = chart.written
    longest = max([len(t) for row in texts for t in row] + [min(len(c), 12) for c in chart.columns])
    wide, tall = max(22.0, 6.2 * longest + 8) if texts else 16.0, 22.0 if texts else 16.0
    left = 14 + 6.0 * max(len(_short(name)) for name in (*chart.rows, chart.down))
    order = range(len(chart.rows))[:: -1 if chart.upwards else 1]
    parts = [_write(left - 6, 12, f"{chart.down} ↓" if chart.down else "", "end")]
    parts.append(_write(left, 12, f"{chart.across} →" if chart.across else "", "start"))
    fits = max(2, int(wide / 6))
    for j, name in enumerate(chart.columns):
        parts.append(_write(left + (j + 0.5) * wide, 27, _short(name, fits)))
    for line, i in enumerate(order):
        y = 32 + line * tall
        parts.append(_write(left - 6, y + tall / 2 + 4, _short(chart.rows[i]), "end"))
        for j, value in enumerate(chart.values[i]):
            if math.isfinite(value):
                said = f"{chart.rows[i]}, {chart.columns[j]}: {value:.4g}"
                content = texts[i][j] if texts else ""
                place = left + j * wide, y, wide, tall
                parts.append(_cell(*place, chart.share(value), content, said))
    width, height = left + len(chart.columns) * wide + 2, 34 + len(chart.rows) * tall
    said = f"{chart.caption} · {chart.title}" if chart.title else chart.caption
    return _figure(said, _picture(width, height, parts, said), _colour_key(chart))


def _cell(
    x: float, y: float, wide: float, tall: float, share: float, content: str, says: str
) -> str:
    colour = diverging(share)
    name, outline = f"<title>{text(says)}</title>", " stroke='currentColor' stroke-opacity='.2'"
    drawn = _rectangle(x, y, wide - 1, tall - 1, hexadecimal(colour), name, outline)
    if content:
        drawn += (
            f"<text x='{x + wide / 2:.1f}' y='{y + tall / 2 + 3:.1f}' text-anchor='middle' "
            f"style='fill:{ink(colour)}'>{text(content)}</text>"
        )
    return drawn


def _colour_key(chart: Matrix) -> str:
    low, high = chart.limits
    steps = [low + (high - low) * k / 8 for k in range(9)]
    colours = [hexadecimal(diverging(chart.share(value))) for value in steps]
    edge = " stroke='currentColor' stroke-opacity='.2'"
    drawn = "".join(_rectangle(9 * k, 1, 9, 8, c, "", edge) for k, c in enumerate(colours))
    key = f"<svg width='81' height='10' aria-hidden='true'>{drawn}</svg>"
    return f"<span class='steer-key'>{_tick(low)} {key} {_tick(high)}</span>"


def _figure(caption: str, picture: str, legend: str = "") -> str:
    below = f"<figcaption>{legend}</figcaption>" if legend else ""
    return f"<figure><figcaption>{text(caption)}</figcaption>{picture}{below}</figure>"


def _picture(width: float, height: float, parts: Sequence[str], says: str) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width:g}' height='{height:g}' "
        f"viewBox='0 0 {width:g} {height:g}' role='img' aria-label='{text(says)}'>"
        f"{''.join(parts)}</svg>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, opacity: float, dashes: str = "") -> str:
    dashed = f" stroke-dasharray='{dashes}'" if dashes else ""
    return (
        f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='currentColor' "
        f"stroke-opacity='{opacity:g}'{dashed}/>"
    )


def _rectangle(
    x: float, y: float, width: float, height: float, fill: str, inside: str = "", more: str = ""
) -> str:
    return (
        f"<rect x='{x:.1f}' y='{y:.1f}' width='{width:.1f}' height='{height:.1f}' "
        f"fill='{fill}'{more}>{inside}</rect>"
    )


def _write(x: float, y: float, content: str, anchor: str = "middle") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>{text(content)}</text>"


def _tick(value: float) -> str:
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}"


def _short(name: str, most: int = _NAME) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
