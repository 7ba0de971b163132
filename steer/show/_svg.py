"""Charts as inline SVG, without scripts, fonts or addresses.

Text and axes take the colour of the page around them.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from steer.show._card import Bar
from steer.show._chart import Bars, Chart, Curves, Matrix, Point, Series
from steer.show._look import DASHES, PALETTE, category, diverging, hexadecimal, ink
from steer.show._markup import text
from steer.show._scale import Scale, around

_Look = dict[str, str | float]
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
    if bar.interval is not None:
        low, high = (bar.share(v) * _CELL_WIDTH for v in bar.interval)
        look: _Look = {"stroke": PALETTE[0], "stroke_width": 3, "stroke_opacity": 0.55}
        parts = [
            _line(0.0, middle, _CELL_WIDTH, middle, 0.25),
            _tag("line", x1=low, y1=middle, x2=high, y2=middle, **look),
            _tag("circle", cx=at, cy=middle, r=3.5, fill=PALETTE[0]),
        ]
        says += ", interval {:.4g} to {:.4g}".format(*bar.interval)
    else:
        hue = PALETTE[1] if bar.value < 0 else PALETTE[0]
        parts = [
            _box(min(zero, at), 2.0, abs(at - zero), _CELL_HEIGHT - 4, hue),
            _line(zero, 0.0, zero, _CELL_HEIGHT, 0.5),
        ]
    return _picture(_CELL_WIDTH, _CELL_HEIGHT, parts, says)


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
    foot, step = _BARS_HEIGHT - _FOOT, min((_BARS_WIDTH - _LEFT) / len(values), 26.0)
    y = Scale(low, high, foot, _TOP)
    base, x = y(chart.base), [_LEFT + k * step for k in range(len(values) + 1)]
    parts = [_line(_LEFT, base, x[-1], base, 0.5)]
    for k, value in enumerate(values):
        if not math.isfinite(value):
            continue
        hue = PALETTE[1] if k == chart.marked else PALETTE[0]
        hue = chart.colours[k] if chart.colours else hue
        top, bottom = sorted((y(min(max(value, low), high)), base))
        says = f"{chart.labels[k]}: {value:.4g}"
        edge = 0.4 if chart.colours else 0.0
        parts.append(_box(x[k] + step * 0.1, top, step * 0.8, bottom - top, hue, says, edge))
        if value > high:
            parts.append(_write(x[k] + step / 2, _TOP - 1, "▲"))
        elif value < low:
            parts.append(_write(x[k] + step / 2, foot + 8, "▼"))
    parts += [_write(_LEFT - 5, y(v) + 3, _tick(v), "end") for v in sorted({low, high})]
    if chart.split is not None and chart.split[0] < len(values):
        at = x[chart.split[0]]
        parts.append(_line(at, _TOP, at, foot, 0.6, "4 3"))
        parts.append(_write(at + 3, _BARS_HEIGHT - 3, f"{chart.split[1]} →", "start"))
    else:
        named = sorted({0, len(values) - 1}) if chart.marked is None else [chart.marked]
        labels = [(x[k] + step / 2, chart.labels[k][:12]) for k in named]
        parts += [_write(at, _BARS_HEIGHT - 3, label) for at, label in labels]
    said = chart.caption + (f" by {chart.along}" if chart.along else "")
    said += f" (first {len(values)})" if len(values) < len(chart.values) else ""
    return _figure(said, _picture(_BARS_WIDTH, _BARS_HEIGHT, parts, said))


def _curves(chart: Curves) -> str:
    drawn = {
        name: replace(one, points=one.points[:: max(1, -(-len(one.points) // _MOST_POINTS))])
        for name, one in list(chart.drawn.items())[:_MOST_SERIES]
        if one.points
    }
    every = [p for one in drawn.values() for p in one.points if math.isfinite(p[0])]
    if len({p[0] for p in every if math.isfinite(p[1])}) < 2:
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
    legend = " ".join(_legend(name, one) for name, one in drawn.items() if name)
    return _figure(said, picture, legend)


def _scales(chart: Curves, points: Sequence[Point]) -> tuple[Scale, Scale]:
    """Return the scales of the horizontal and of the vertical axis."""
    places = [p[0] for p in points] + ([] if chart.marked is None else [chart.marked])
    low, high = around([v for p in points for v in p[1:]])
    least, most = chart.limits
    low, high = low if least is None else least, high if most is None else most
    left, right = (0.0, 1.08 * max(places)) if chart.root else around(places, 0.03)
    return (
        Scale(left, right, _LEFT, _WIDTH - 8, chart.root),
        Scale(low, high if high > low else low + 1, _HEIGHT - 34, _TOP + 6),
    )


def _grid(chart: Curves, x: Scale, y: Scale, places: Sequence[float]) -> Iterator[str]:
    """Yield the axes with their ticks and labels, and what is highlighted on them."""
    yield _line(x.start, y.start, x.end, y.start, 0.6)
    yield _line(x.start, y.start, x.start, y.end, 0.6)
    whole = places[:: max(1, -(-len(places) // 12))]
    for value in whole if chart.whole else x.ticks:
        yield _line(x(value), y.start, x(value), y.end, 0.13)
        yield _write(x(value), y.start + 13, _tick(value))
    for value in y.ticks:
        yield _line(x.start, y(value), x.end, y(value), 0.13)
        yield _write(x.start - 5, y(value) + 3, _tick(value), "end")
    along = f"{chart.along}, square-root scale" if chart.root else chart.along
    yield _write((x.start + x.end) / 2, _HEIGHT - 5, along)
    if chart.level is not None:
        yield _line(x.start, y(chart.level), x.end, y(chart.level), 0.6, "2 3")
    if chart.marked is not None:
        at = x(chart.marked)
        yield _line(at, y.start, at, y.end, 0.6, "4 3")
        side, room = ("end", -4) if at > 0.8 * _WIDTH else ("start", 4)
        yield _write(at + room, y.end + 4, chart.marked_name, side)


def _series(name: str, one: Series, chart: Curves, x: Scale, y: Scale) -> Iterator[str]:
    """Yield band, lines and markers of a series, and crosses where it is not finite."""
    sure = [p for p in one.points if len(p) == 4 and all(map(math.isfinite, p))]
    if len(sure) > 1:
        edges = [(p[0], p[2]) for p in sure] + [(p[0], p[3]) for p in reversed(sure)]
        band = _through((x(a), y(b)) for a, b in edges)
        yield _tag("polygon", points=band, fill=category(one.hue or 0)[0], fill_opacity=0.18)
    run: list[tuple[float, float]] = []
    spots: dict[str, str] = {}  # where several points share a spot, the last one is drawn
    for point in [*one.points, (math.nan, math.nan)]:
        if all(map(math.isfinite, point[:2])):
            at = x(point[0]), y(point[1])
            hollow = one.hollow or (one.joined and point[0] == chart.marked)
            says = f"{name} {point[0]:.4g}: {point[1]:.4g}".strip()
            spots[_through([at])] = _marker(*at, one, hollow, says)
            run.append(at)
            continue
        if one.joined and len(run) > 1:
            yield _path(run, one)
        run = []
        if math.isfinite(point[0]):
            yield _write(x(point[0]), y.start - 3, "×")
    if not one.faint:
        yield from spots.values()


def _path(places: Iterable[tuple[float, float]], one: Series) -> str:
    colour, _, line = category(one.hue or 0)
    look: _Look = {"stroke": colour, "stroke_width": 1.6, "stroke_dasharray": DASHES[line]}
    faint = 0.6 if one.faint else ""
    return _tag("polyline", points=_through(places), fill="none", stroke_opacity=faint, **look)


def _marker(x: float, y: float, one: Series, hollow: bool, says: str = "") -> str:
    colour, marker, _ = category(one.hue or 0)
    size = 1.5 if hollow and one.joined else 0.9
    look: _Look = {"fill": "none" if hollow else colour, "stroke": colour, "stroke_width": 1.2}
    look["class"] = "steer-hollow" if hollow else ""
    inside = _tag("title", text(says)) if says else ""
    if marker not in _CORNERS:
        return _tag("circle", inside, cx=x, cy=y, r=3 * size, **look)
    corners = _through((x + size * a, y + size * b) for a, b in _CORNERS[marker])
    return _tag("polygon", inside, points=corners, **look)


def _legend(name: str, one: Series) -> str:
    drawn = _path([(0, 5), (24, 5)], one) if one.joined else ""
    drawn += "" if one.faint else _marker(12, 5, one, one.hollow)
    return _key(f"{_icon(24, drawn)} {text(_short(name))}")


def _matrix(chart: Matrix) -> str:
    if not chart.rows or not chart.columns:
        return ""
    texts = chart.written
    longest = max([len(t) for row in texts for t in row] + [min(len(c), 12) for c in chart.columns])
    wide, tall = max(22.0, 6.2 * longest + 8) if texts else 16.0, 22.0 if texts else 16.0
    left = 14 + 6.0 * max(len(_short(name)) for name in (*chart.rows, chart.down))
    order = range(len(chart.rows))[:: -1 if chart.upwards else 1]
    x, y = ([start + k * size for k in range(n)] for start, size, n in
            ((left, wide, len(chart.columns)), (32, tall, len(chart.rows))))  # fmt: skip
    parts = [_write(left - 6, 12, f"{chart.down} ↓" if chart.down else "", "end")]
    parts.append(_write(left, 12, f"{chart.across} →" if chart.across else "", "start"))
    fits = max(2, int(wide / 6))
    for place, name in zip(x, chart.columns, strict=True):
        parts.append(_write(place + wide / 2, 27, _short(name, fits)))
    for top, i in zip(y, order, strict=True):
        parts.append(_write(left - 6, top + tall / 2 + 4, _short(chart.rows[i]), "end"))
        for j, value in enumerate(chart.values[i]):
            if math.isfinite(value):
                colour = diverging(chart.share(value))
                says = f"{chart.rows[i]}, {chart.columns[j]}: {value:.4g}"
                parts.append(_box(x[j], top, wide - 1, tall - 1, hexadecimal(colour), says, 0.2))
                if texts:
                    middle = x[j] + wide / 2, top + tall / 2 + 3
                    parts.append(_write(*middle, texts[i][j], style=f"fill:{ink(colour)}"))
    width, height = left + len(chart.columns) * wide + 2, 34 + len(chart.rows) * tall
    said = f"{chart.caption} · {chart.title}" if chart.title else chart.caption
    return _figure(said, _picture(width, height, parts, said), _colour_key(chart))


def _colour_key(chart: Matrix) -> str:
    low, high = chart.limits
    shares = [chart.share(low + (high - low) * k / 8) for k in range(9)]
    colours = [hexadecimal(diverging(share)) for share in shares]
    drawn = "".join(_box(9 * k, 1, 9, 8, c, edge=0.2) for k, c in enumerate(colours))
    return _key(f"{_tick(low)} {_icon(81, drawn)} {_tick(high)}")


def _figure(caption: str, picture: str, legend: str = "") -> str:
    below = f"<figcaption>{legend}</figcaption>" if legend else ""
    return f"<figure><figcaption>{text(caption)}</figcaption>{picture}{below}</figure>"


def _key(inside: str) -> str:
    return f"<span class='steer-key'>{inside}</span>"


def _icon(width: int, drawn: str) -> str:
    return f"<svg width='{width}' height='10' aria-hidden='true'>{drawn}</svg>"


def _picture(width: float, height: float, parts: Iterable[str], says: str) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width:g}' height='{height:g}' "
        f"viewBox='0 0 {width:g} {height:g}' role='img' aria-label='{text(says)}'>"
        f"{''.join(parts)}</svg>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, opacity: float, dashes: str = "") -> str:
    look: _Look = {"stroke": "currentColor", "stroke_opacity": opacity, "stroke_dasharray": dashes}
    return _tag("line", x1=x1, y1=y1, x2=x2, y2=y2, **look)


def _box(
    x: float, y: float, width: float, height: float, fill: str, says: str = "", edge: float = 0.0
) -> str:
    look: _Look = {"stroke": "currentColor", "stroke_opacity": edge} if edge else {}
    inside = _tag("title", text(says)) if says else ""
    return _tag("rect", inside, x=x, y=y, width=width, height=height, fill=fill, **look)


def _write(x: float, y: float, content: str, anchor: str = "middle", style: str = "") -> str:
    return _tag("text", text(content), x=x, y=y, text_anchor=anchor, style=style) if content else ""


def _through(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _tag(name: str, inside: str = "", /, **look: str | float) -> str:
    """Return an element with the attributes that are not empty."""
    given = {key.replace("_", "-"): value for key, value in look.items() if value != ""}
    said = (f" {k}='{round(v, 2) if isinstance(v, float) else v}'" for k, v in given.items())
    return f"<{name}{''.join(said)}>{inside}</{name}>"


def _tick(value: float) -> str:
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}"


def _short(name: str, most: int = _NAME) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
