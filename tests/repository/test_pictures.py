"""The pictures of the guides: drawn by every view, legible, and shown."""

import re
import runpy
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from tests.repository.blocks import ROOT

GUIDE = (ROOT / "docs/howto/looking-inside.md").read_text()
SHOWN = re.findall(r"!\[.+\]\(\.\./pictures/([a-z-]+)\.png\)", GUIDE)


@pytest.fixture(scope="module")
def drawn() -> dict[str, Any]:
    """Figures of every view by name."""
    views = runpy.run_path(str(ROOT / "docs/pictures.py"))["views"]()
    return {name: found.plot() for name, found in views.items()}


def test_every_picture_is_there_and_shown_once(drawn: dict[str, Any]) -> None:
    assert sorted(SHOWN) == sorted(drawn)
    assert {p.stem for p in (ROOT / "docs/pictures").glob("*.png")} == {*drawn, "console", "demo"}


def test_every_word_is_inside_its_picture_and_drawn_as_it_is(drawn: dict[str, Any]) -> None:
    for name, figure in drawn.items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        width, height = canvas.get_width_height()
        for text in words(figure):
            box = text.get_window_extent()
            inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
            assert inside, (name, text.get_text(), box)
            assert "\\u" not in text.get_text(), (name, text.get_text())


def words(figure: Any) -> list[Text]:
    """Return titles, labels of axes and colour bars, legends, and what stands in the picture."""
    found: list[Text] = []
    for ax in figure.axes:
        legend = ax.get_legend()
        found += [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
        found += [] if legend is None else legend.get_texts()
    return [text for text in found if text.get_text().strip()]
