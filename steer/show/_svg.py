"""Small pictures as inline SVG: a bar in a cell, upright bars, and curves on common axes."""

import math
from collections.abc import Sequence

from steer.show._card import Bar, Bars, Curves, Point, scale
from steer.show._markup import text

_HUES = ("#2a86c2", "#d55e00", "#009e73", "#b5609a", "#b98300", "#777777")
_DASHES = ("", "5 3", "2 2", "8 2 2 2", "1 3", "6 2 2 2")
_CELL_WIDTH, _CELL_HEIGHT = 110.0, 12.0
_WIDTH, _HEIGHT, _LEFT, _FOOT, _TOP = 330.0, 84.0, 46.0, 16.0, 8.0
_MOST_BARS, _MOST_CURVES, _MOST_POINTS = 160, 6, 200
_NAME = 28  # characters of a name in a legend


def bar_svg(bar: Bar) -> str:
    """Return a bar as a picture for a cell of a table.

    Args:
        bar: The bar.
    """
    if not bar.drawn:
        return ""
    zero, at = (bar.share(v) * _CELL_WIDTH for v in (0.0, bar.value))
    middle = _CELL_HEIGHT / 2
    axis = _line(zero, 0, zero, _CELL_HEIGHT, 0.5)
    if bar.ends is not None and all(map(math.isfinite, bar.ends)):
        low, high = (bar.share(v) * _CELL_WIDTH for v in bar.ends)
        drawn = (
            _line(0, middle, _CELL_WIDTH, middle, 0.25)
            + f"<line x1='{low:.1f}' y1='{middle:g}' x2='{high:.1f}' y2='{middle:g}' "
            f"stroke='{_HUES[0]}' stroke-width='3' stroke-opacity='.55'/>"
            f"<circle cx='{at:.1f}' cy='{middle:g}' r='3.5' fill='{_HUES[0]}'/>"
        )
        says = f"{bar.value:.4g}, interval {bar.ends[0]:.4g} to {bar.ends[1]:.4g}"
    else:
        hue = _HUES[1] if bar.value < 0 else _HUES[0]
        drawn = (
            f"<rect x='{min(zero, at):.1f}' y='2' width='{abs(at - zero):.1f}' "
            f"height='{_CELL_HEIGHT - 4:g}' fill='{hue}'/>{axis}"
        )
        says = f"{bar.value:.4g}"
    return _picture(_CELL_WIDTH, _CELL_HEIGHT, drawn, says)


def picture_svg(block: Bars | Curves) -> str:
    """Return a picture with its caption; nothing where there is too little to draw.

    Args:
        block: The picture.
    """
    return _bars(block) if isinstance(block, Bars) else _curves(block)


def _bars(block: Bars) -> str:
    values, labels = block.values[:_MOST_BARS], block.labels[:_MOST_BARS]
    low, high = scale(values)
    if not 0 < high - low < math.inf or sum(map(math.isfinite, values)) < 2:
        return ""
    bottom = _HEIGHT - _FOOT

    def up(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - _TOP)

    step = min((_WIDTH - _LEFT) / len(values), 26.0)
    end = _LEFT + step * len(values)
    parts = [_line(_LEFT, up(0.0), end, up(0.0), 0.5)]
    for k, (label, value) in enumerate(zip(labels, values, strict=True)):
        if not math.isfinite(value):
            continue
        hue, name = _HUES[1] if k == block.marked else _HUES[0], f"{label}: {value:.4g}"
        parts.append(
            f"<rect x='{_LEFT + k * step + step * 0.1:.1f}' y='{min(up(value), up(0.0)):.1f}' "
            f"width='{step * 0.8:.1f}' height='{abs(up(value) - up(0.0)):.1f}' fill='{hue}'>"
            f"<title>{text(name)}</title></rect>"
        )
    parts += [_write(_LEFT - 5, up(v) + 3, f"{v:.3g}", "end") for v in sorted({low, high})]
    named = {0, len(values) - 1} if block.marked is None else {block.marked}
    for k in sorted(named):
        parts.append(_write(_LEFT + (k + 0.5) * step, _HEIGHT - 3, labels[k][:12], "middle"))
    left = len(block.values) - len(values)
    return _figure(f"{block.caption} (first {len(values)})" if left else block.caption, parts)


def _curves(block: Curves) -> str:
    series = {n: _drawn(points) for n, points in list(block.series.items())[:_MOST_CURVES]}
    series = {name: points for name, points in series.items() if points}
    every = [point for points in series.values() for point in points]
    if len({x for x, _ in every}) < 2:
        return ""
    (left, right), (low, high) = _limits([x for x, _ in every]), _limits([y for _, y in every])
    bottom = _HEIGHT - _FOOT

    def place(point: Point) -> tuple[float, float]:
        across = _LEFT + 4 + (point[0] - left) / (right - left) * (_WIDTH - _LEFT - 10)
        return across, bottom - (point[1] - low) / (high - low) * (bottom - _TOP)

    parts = [_line(_LEFT, bottom, _WIDTH, bottom, 0.5), _line(_LEFT, _TOP, _LEFT, bottom, 0.5)]
    for value in (left, 0.0, right) if left < 0 < right else (left, right):
        at = place((value, low))[0]
        parts.append(_write(at, _HEIGHT - 3, f"{value:.3g}", "middle"))
    if left < 0 < right:
        parts.append(_line(place((0.0, low))[0], _TOP, place((0.0, low))[0], bottom, 0.25))
    if block.marked is not None and left <= block.marked <= right:
        at = place((block.marked, low))[0]
        parts.append(
            f"<line x1='{at:.1f}' y1='{_TOP:g}' x2='{at:.1f}' y2='{bottom:g}' "
            f"stroke='{_HUES[1]}' stroke-dasharray='3 2'/>"
        )
    parts += [_write(_LEFT - 5, place((left, v))[1] + 3, f"{v:.3g}", "end") for v in (low, high)]
    for k, (name, points) in enumerate(series.items()):
        parts.append(_curve(name, points, [place(p) for p in points], k))
    more = len(block.series) - _MOST_CURVES
    also = f" (first {_MOST_CURVES} of {len(block.series)})" if more > 0 else ""
    legend = _legend(list(series)) if any(series) else ""
    return _figure(f"{block.caption} against {block.along}{also}", parts, legend)


def _drawn(points: Sequence[Point]) -> list[Point]:
    """Return the points that can be drawn, every so many of them where they are too dense."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    return finite[:: max(1, -(-len(finite) // _MOST_POINTS))]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if not 0 < high - low < math.inf:
        return low - 1.0, low + 1.0
    return low, high


def _curve(name: str, points: Sequence[Point], places: Sequence[Point], k: int) -> str:
    hue, dash = _HUES[k % len(_HUES)], _DASHES[k % len(_DASHES)]
    through = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(
        f"<circle cx='{x:.1f}' cy='{y:.1f}' r='2.2' fill='{hue}'>"
        f"<title>{text(f'{name} {point[0]:.4g}: {point[1]:.4g}'.strip())}</title></circle>"
        for (x, y), point in zip(places, points, strict=True)
    )
    return (
        f"<polyline points='{through}' fill='none' stroke='{hue}' stroke-width='1.6' "
        f"stroke-dasharray='{dash}'/>{dots}"
    )


def _legend(names: Sequence[str]) -> str:
    return " ".join(
        "<span class='steer-key'><svg width='22' height='8'>"
        f"<line x1='0' y1='4' x2='22' y2='4' stroke='{_HUES[k]}' stroke-width='2' "
        f"stroke-dasharray='{_DASHES[k]}'/></svg> "
        f"{text(name if len(name) <= _NAME else name[: _NAME - 1] + '…')}</span>"
        for k, name in enumerate(names)
    )


def _figure(caption: str, parts: Sequence[str], legend: str = "") -> str:
    picture = _picture(_WIDTH, _HEIGHT, "".join(parts), caption)
    below = f"<figcaption>{legend}</figcaption>" if legend else ""
    return f"<figure><figcaption>{text(caption)}</figcaption>{picture}{below}</figure>"


def _picture(width: float, height: float, content: str, says: str) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width:g}' height='{height:g}' "
        f"viewBox='0 0 {width:g} {height:g}' role='img' aria-label='{text(says)}'>{content}</svg>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, opacity: float) -> str:
    return (
        f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='currentColor' "
        f"stroke-opacity='{opacity:g}'/>"
    )


def _write(x: float, y: float, content: str, anchor: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>{text(content)}</text>"
