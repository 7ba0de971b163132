"""What views are drawn with: a new figure, a matrix with its numbers, a line with its interval."""

import base64
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from jaxtyping import Float
from torch import Tensor

from steer.errors import MissingExtraError

_SMALL = 7.5  # points
_WRITTEN = 12  # rows or columns up to which a matrix has its numbers in it


def _picture() -> Any:
    """Return the module that imports matplotlib."""
    try:
        return import_module("steer.view._picture")
    except ImportError as error:
        raise MissingExtraError(
            "a picture needs matplotlib",
            found="it is not installed",
            expected="the extra 'plot'",
            do="pip install 'residual-steer[plot]'",
        ) from error


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure that belongs to no window.

    Args:
        width: In inches.
        height: In inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    return _picture().Picture(figsize=(width, height), layout="constrained")


def image_html(figure: Any, alternative: str) -> str:
    """Return a figure as an HTML image that holds its own data.

    Args:
        figure: A matplotlib figure.
        alternative: What it shows, in words; it must be escaped already.
    """
    data = base64.b64encode(_picture().png(figure)).decode("ascii")
    return f"<img alt='{alternative}' src='data:image/png;base64,{data}'/>"


def colours(*, diverging: bool) -> Any:
    """Return a colour map: around a middle, or from one end to the other (viridis).

    Args:
        diverging: Which.
    """
    return _picture().diverging_map() if diverging else "viridis"


def matrix(
    ax: Any,
    values: Float[Tensor, "layer pos"],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    unit: str,
    limits: tuple[float, float],
    texts: Sequence[Sequence[str]] | None = None,
) -> None:
    """Draw a matrix of values with a colour bar; small ones have their numbers in the cells.

    Args:
        ax: Where to draw.
        values: The values; NaN is left white.
        rows: Names of the rows.
        columns: Names of the columns.
        unit: What the values are, with their unit, for the colour bar.
        limits: Values at the ends of the colours; a lower end below 0 gives diverging colours. If
            values lie beyond, the colour bar ends in an arrow.
        texts: What stands in the cells in place of numbers.
    """
    low, high = limits
    image = ax.imshow(
        values.double().numpy(),
        cmap=colours(diverging=low < 0),
        vmin=low,
        vmax=high,
        aspect="auto",
        interpolation="nearest",
    )
    ax.set_xticks(range(len(columns)), [drawable(c) for c in columns], parse_math=False)
    ax.set_yticks(range(len(rows)), [drawable(r) for r in rows], parse_math=False)
    ax.tick_params(length=0)
    if max(map(len, columns), default=0) > 4 and len(columns) > 3:
        ax.tick_params(axis="x", rotation=35)
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    if texts is None and max(values.shape) <= _WRITTEN:
        texts = [["" if v != v else f"{v:.2f}" for v in row] for row in values.tolist()]
    for r, line in enumerate(texts or ()):
        for c, text in enumerate(line):
            _write(ax, image, float(values[r, c]), (c, r), text)
    beyond = {(False, True): "max", (True, False): "min", (True, True): "both"}.get(
        (bool((values < low).any()), bool((values > high).any())), "neither"
    )
    bar = ax.figure.colorbar(image, ax=ax, label=unit, fraction=0.05, pad=0.02, extend=beyond)
    tidy([bar.ax])


def _write(ax: Any, image: Any, value: float, at: tuple[int, int], text: str) -> None:
    red, green, blue, _ = image.cmap(image.norm(value))
    bright = 0.299 * red + 0.587 * green + 0.114 * blue
    ax.text(
        *at,
        drawable(text),
        ha="center",
        va="center",
        fontsize=_SMALL,
        color="black" if value != value or bright > 0.5 else "white",
        parse_math=False,
    )


def mark_beyond(ax: Any, place: float, value: float, *, named: bool) -> None:
    """Mark a bar that goes on beyond the end of the axis.

    Args:
        ax: Where; its limits are set already.
        place: Where the bar stands.
        value: Its value.
        named: Whether the value is written at the mark.
    """
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


def tidy(axes: Sequence[Any]) -> None:
    """Have labels, titles and legends drawn as they are: without mathematics, and with glyphs.

    Args:
        axes: Matplotlib axes.
    """
    _picture().tidy(axes)


def drawable(text: str) -> str:
    """Return a text as it is drawn: cut where it is long, with code points where a glyph lacks.

    Args:
        text: Any text, for instance a token.
    """
    return str(_picture().drawable(text))


def legend_name(label: str) -> str:
    """Return a label that matplotlib shows: it leaves those out that begin with an underscore.

    Args:
        label: The label.
    """
    return f" {label}" if label.startswith("_") else label


def line(
    ax: Any,
    x: Sequence[float],
    y: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    look: dict[str, Any],
    label: str | None = None,
) -> None:
    """Draw a line with its interval as a band; where there is no interval, no band.

    Args:
        ax: Where to draw.
        x: Places.
        y: Values.
        low: Lower ends.
        high: Upper ends.
        look: Colour, marker and line (`steer.view.look.category`).
        label: Name in the legend.
    """
    ax.plot(x, y, label=label and legend_name(label), markersize=4.5, linewidth=1.6, **look)
    ax.fill_between(x, low, high, color=look["color"], alpha=0.2, linewidth=0)


def layer_axis(ax: Any, layers: Sequence[int]) -> None:
    """Label an axis of layers, with whole numbers.

    Args:
        ax: Where.
        layers: The layers drawn.
    """
    ax.set_xlabel("layer (output of block)")
    step = max(1, -(-len(layers) // 12))
    ax.set_xticks(list(layers)[::step])
    ax.grid(alpha=0.3)


def around_zero(values: Tensor) -> tuple[float, float]:
    """Return limits of a colour scale around 0 that hold every finite value.

    Args:
        values: The values.
    """
    finite = values[values.isfinite()]
    end = float(finite.abs().max()) if len(finite) else 0.0
    return (-end, end) if end > 0 else (-1.0, 1.0)
