"""The figure of a view: it belongs to no window, and shows itself in a notebook.

This module imports matplotlib; it is imported by `steer.view.drawing` inside functions only.
"""

import io
import os
from collections.abc import Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from steer.errors import FileError
from steer.store import path_of, write_bytes
from steer.view._look import diverging

_DPI = 110
_NAME, _LABEL = 28, 100  # characters of a name, and of an axis


class Picture(Figure):
    """A matplotlib figure that a notebook shows without pyplot."""

    def savefig(self, fname: Any, **options: Any) -> None:
        """Write the picture as `matplotlib.figure.Figure.savefig` does, a named file atomically.

        Args:
            fname: A file, whose ending says the format, or something to write to.
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
            path = path.with_name(f"{path.name}.{kind}")
        known = self.canvas.get_supported_filetypes()
        if kind.lower() not in known:
            raise FileError(
                f"{path}: matplotlib writes no such format",
                found=kind,
                expected=" | ".join(sorted(known)),
                do="name the file with one of these endings",
            )
        out = io.BytesIO()
        super().savefig(out, format=kind.lower(), **options)
        write_bytes(path, out.getvalue(), FileError)

    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Any) -> bytes:
    """Return a figure as PNG, without the date or the version of matplotlib.

    Args:
        figure: A matplotlib figure.
    """
    out = io.BytesIO()
    if figure.canvas is None:
        FigureCanvasAgg(figure)
    figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
    return out.getvalue()


def diverging_map() -> Any:
    """Return the colour map from vermilion through white to blue."""
    ends = [tuple(c / 255 for c in diverging(share)) for share in (-1, 0, 1)]
    return LinearSegmentedColormap.from_list("steer", ends)


def tidy(axes: Sequence[Any]) -> None:
    """Have labels, titles and legends drawn as they are: without mathematics, and with glyphs.

    Args:
        axes: Matplotlib axes.
    """
    for ax in axes:
        legend = ax.get_legend()
        shown = [] if legend is None else legend.get_texts()
        labels = (ax.title, ax.xaxis.label, ax.yaxis.label)
        for text, most in [(t, _LABEL) for t in labels] + [(t, _NAME) for t in shown]:
            text.set_parse_math(False)
            text.set_text(drawable(text.get_text(), most))


def drawable(text: str, most: int = _NAME) -> str:
    """Return a text as it is drawn: cut where it is long, with code points where a glyph lacks.

    Args:
        text: Any text, for instance a token; it may have several lines.
        most: Most characters; a picture has no room for more.
    """
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    font = get_font(findfont(FontProperties()))
    return "".join(
        c if c == "\n" or font.get_char_index(ord(c)) else f"\\u{ord(c):04x}" for c in text
    )
