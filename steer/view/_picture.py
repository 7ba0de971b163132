"""Charts drawn by matplotlib, in figures that belong to no window.

This module imports matplotlib; `steer.view._base` imports it inside a function.
"""

import io
import math
import os
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from steer.errors import FileError
from steer.show import Bars, Chart, Curves, Matrix, Series
from steer.show._look import GREY, PALETTE, category, diverging, ink
from steer.store import path_of, write_bytes

_DPI = 110
_NAME, _LABEL = 28, 100  # characters of a name, and of an axis label
_SMALL = 7.5  # points
_LABELLED = 60  # bars up to which an axis names each
_ROTATED = 20  # characters of all labels together from which they are turned
_NAMED = 8  # bars cut off up to which each has its number


class Picture(Figure):
    """A matplotlib figure that a notebook shows without pyplot."""

    def savefig(self, fname: Any, **options: Any) -> None:
        """Write the picture as `matplotlib.figure.Figure.savefig` does, a named file atomically.

        Args:
            fname: A file, whose suffix selects the format, or a file object.
            **options: As matplotlib takes them.

        Raises:
            FileError: The file cannot be written, or matplotlib has no such format.
        """
        if not isinstance(fname, str | os.PathLike):
            super().savefig(fname, **options)
            return
        path = path_of(fname, FileError)
        kind = options.pop("format", None) or path.suffix[1:]
        if not kind:
            kind = self.canvas.get_default_filetype()
            path = path.with_name(f"{path.name}.{kind}") if path.name else path
        known = self.canvas.get_supported_filetypes()
        if kind.lower() not in known:
            raise FileError(
                f"{path}: matplotlib writes no such format",
                found=kind,
                expected=" | ".join(sorted(known)),
                do="name the file with one of these suffixes",
            )
        out = io.BytesIO()
        super().savefig(out, format=kind.lower(), **options)
        write_bytes(path, out.getvalue(), FileError)

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        self.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
        return out.getvalue()


def draw(rows: Sequence[Sequence[Chart]]) -> Picture:
    """Return a figure with a row of axes for each row of charts."""
    sizes = np.array([[size(chart) for chart in row] for row in rows])
    widths, heights = sizes[:, :, 0].max(axis=0), sizes[:, :, 1].max(axis=1)
    figure = Picture(figsize=(widths.sum(), heights.sum()), layout="constrained")
    ratios = {"width_ratios": widths, "height_ratios": heights}
    grid = figure.subplots(len(rows), len(rows[0]), squeeze=False, **ratios)
    for chart, ax in zip(chain.from_iterable(rows), grid.flat, strict=True):
        draw_into(ax, chart)
    return figure


def size(chart: Chart) -> tuple[float, float]:
    """Return width and height of a chart in inches."""
    if isinstance(chart, Bars):
        named = len(chart.values) <= _LABELLED and sum(map(len, chart.labels)) > _ROTATED
        return (max(5.0, min(11.0, 1.5 + 0.2 * len(chart.values))), 3.2) if named else (3.8, 3.2)
    if isinstance(chart, Curves):
        return (5.2, 4.6) if _below(chart) else (4.6, 3.4)
    longest = max((len(text) for row in chart.written for text in row), default=2)
    cell = max(0.42, 0.08 * longest + 0.06)
    names = 0.075 * min(max(map(len, chart.rows), default=0), _NAME)
    width = 1.9 + names + cell * len(chart.columns)
    return min(width, 11.0), min(max(2.4, 1.5 + 0.36 * len(chart.rows)), 8.0)


def _below(chart: Curves) -> bool:
    """Return whether the legend goes below the axes, as it is long or points lie anywhere."""
    return len(chart.series) > 4 or not all(one.joined for one in chart.drawn.values())


def draw_into(ax: Any, chart: Chart) -> None:
    """Draw a chart into matplotlib axes."""
    if isinstance(chart, Bars):
        _bars(ax, chart)
    elif isinstance(chart, Curves):
        _curves(ax, chart)
        if ax.get_legend_handles_labels()[1]:
            below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.15), "ncols": 2}
            ax.legend(fontsize=7, **(below if _below(chart) else {}))
    else:
        _matrix(ax, chart)
    if chart.title:
        ax.set_title(chart.title)
    _tidy(ax)


def _bars(ax: Any, chart: Bars) -> None:
    places, low, high = range(len(chart.values)), *chart.shown
    colours = chart.colours or [PALETTE[1] if k == chart.marked else PALETTE[0] for k in places]
    outline = {"edgecolor": "black", "linewidth": 0.5} if chart.colours else {}
    heights = [value - chart.base for value in chart.values]
    ax.bar(places, heights, bottom=chart.base, color=colours, **outline)
    ax.axhline(chart.base, color="black", linewidth=0.8)
    if len(places) <= _LABELLED:
        ax.set_xticks(places, [drawable(label) for label in chart.labels], parse_math=False)
        if sum(map(len, chart.labels)) > _ROTATED:
            ax.tick_params(axis="x", rotation=90, labelsize=7)
    ax.set(xlabel=chart.along, ylabel=chart.caption.replace(" (", "\n("))
    ax.margins(x=0.01)
    ax.grid(axis="y", alpha=0.3)
    ax.set_axisbelow(True)
    if chart.split is not None:
        at, name = chart.split
        ax.axvline(at - 0.5, color="black", linewidth=1, linestyle="--")
        above = {"xycoords": ("data", "axes fraction"), "fontsize": 8, "va": "bottom"}
        ax.annotate(f"{name} →", (at - 0.4, 1.0), **above)
    if beyond := chart.beyond:
        ax.set_ylim(low, high)
        for k in beyond:
            _mark_beyond(ax, k, chart.values[k], named=len(beyond) <= _NAMED)
        right = chart.split is None or chart.split[0] <= len(places) / 2
        ax.annotate(
            f"▲▼ cut off: {len(beyond)} of {len(places)} {chart.along or 'bars'}",
            (1.0 if right else 0.0, 1.0),
            xycoords="axes fraction",
            fontsize=8,
            ha="right" if right else "left",
            va="bottom",
        )


def _mark_beyond(ax: Any, place: float, value: float, *, named: bool) -> None:
    """Mark a bar that goes on beyond the end of the axis."""
    low, high = ax.get_ylim()
    up = value > high
    edge, inwards = (high, -1) if up else (low, 1)
    at = edge + inwards * 0.03 * (high - low)
    look = {"color": "black", "markeredgecolor": "white", "markersize": 6}
    ax.plot([place], [at], marker="^" if up else "v", linestyle="none", **look)
    if named:
        ax.annotate(
            f"{value:,.4g}",
            (place, at),
            xytext=(0, 6 * inwards),
            textcoords="offset points",
            rotation=90,
            fontsize=_SMALL,
            ha="center",
            va="top" if up else "bottom",
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"},
        )


def _curves(ax: Any, chart: Curves) -> None:
    for name, one in chart.drawn.items():
        _series(ax, name, one)
    if chart.marked is not None:
        ax.axvline(chart.marked, color=GREY, linewidth=1, linestyle=":")
        if chart.marked_name:
            at = {"xycoords": ("data", "axes fraction"), "fontsize": 8, "va": "bottom"}
            ax.annotate(chart.marked_name, (chart.marked, 1.0), ha="center", **at)
    if chart.level is not None:
        ax.axhline(chart.level, color=GREY, linewidth=1, linestyle=":")
    if chart.root:
        ax.set_xscale("function", functions=(_root, _square))
    ax.set(xlabel=chart.along, ylabel=chart.caption)
    ax.set_ylim(*chart.limits)
    ax.grid(alpha=0.3)
    if not chart.whole and not chart.root:
        ax.locator_params(axis="x", nbins=6)
    elif chart.whole:
        places = sorted({p[0] for one in chart.drawn.values() for p in one.points})
        ax.set_xticks(places[:: max(1, -(-len(places) // 12))])


def _root(values: Any) -> Any:
    return values.clip(0) ** 0.5


def _square(values: Any) -> Any:
    return values**2


def _series(ax: Any, name: str, one: Series) -> None:
    colour, marker, line = category(one.hue or 0)
    look = {"color": colour, "markersize": 4.5, "linewidth": 1.6}
    look |= {"marker": marker, "linestyle": line if one.joined else "none"}
    if one.hollow:
        look |= {"markerfacecolor": "none"}
    if one.faint:
        look |= {"alpha": 0.6, "linewidth": 1.1, "marker": ""}
    label = f" {name}" if name.startswith("_") else name  # matplotlib hides a leading underscore
    places, values = [p[0] for p in one.points], [p[1] for p in one.points]
    ax.plot(places, values, label=label or None, **look)
    sure = [p for p in one.points if len(p) == 4]
    if sure:
        x, _, low, high = zip(*sure, strict=True)
        ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    if lost := [p[0] for p in one.points if math.isfinite(p[0]) and not math.isfinite(p[1])]:
        foot = {"transform": ax.get_xaxis_transform(), "color": colour}
        ax.plot(lost, [0.02] * len(lost), "x", label=f"not finite: {name}", **foot)


def _matrix(ax: Any, chart: Matrix) -> None:
    low, high = chart.limits
    image = ax.imshow(
        chart.values,
        cmap=_colours(around=low < 0),
        vmin=low,
        vmax=high,
        aspect="auto",
        interpolation="nearest",
    )
    ax.set_xticks(range(len(chart.columns)), map(drawable, chart.columns), parse_math=False)
    ax.set_yticks(range(len(chart.rows)), map(drawable, chart.rows), parse_math=False)
    ax.tick_params(length=0)
    if max(map(len, chart.columns), default=0) > 4 and len(chart.columns) > 3:
        ax.tick_params(axis="x", rotation=35)
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    for r, line in enumerate(chart.written):
        for c, content in enumerate(line):
            value = chart.values[r][c]
            colour = ink(diverging(chart.share(value))) if value == value else "black"
            middle = {"ha": "center", "va": "center", "fontsize": _SMALL, "color": colour}
            ax.text(c, r, drawable(content), parse_math=False, **middle)
    if chart.upwards:
        ax.invert_yaxis()
    ax.set(xlabel=chart.across, ylabel=chart.down)
    values = [v for row in chart.values for v in row]
    beyond = any(v < low for v in values) + 2 * any(v > high for v in values)
    look = {"fraction": 0.05, "pad": 0.02, "extend": ("neither", "min", "max", "both")[beyond]}
    bar = ax.figure.colorbar(image, ax=ax, label=chart.caption.replace(" (", "\n("), **look)
    _tidy(bar.ax)


def _colours(*, around: bool) -> Any:
    """Return the colour map around a middle, or the half of it above the middle."""
    stops = [
        tuple(c / 255 for c in diverging(share)) for share in ((-1, 0, 1) if around else (0, 1))
    ]
    return LinearSegmentedColormap.from_list("steer", stops)


def _tidy(ax: Any) -> None:
    """Draw labels, titles and legends literally: without mathematics, and with glyphs."""
    legend = ax.get_legend()
    shown = [] if legend is None else legend.get_texts()
    labels = (ax.title, ax.xaxis.label, ax.yaxis.label)
    for text, most in [(t, _LABEL) for t in labels] + [(t, _NAME) for t in shown]:
        text.set_parse_math(False)
        text.set_text(drawable(text.get_text(), most))


def drawable(text: str, most: int = _NAME) -> str:
    """Return a text cut to a length, with code points in place of characters without a glyph."""
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    font = get_font(findfont(FontProperties()))
    return "".join(
        c if c == "\n" or font.get_char_index(ord(c)) else f"\\u{ord(c):04x}" for c in text
    )
