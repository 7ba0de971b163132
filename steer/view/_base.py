"""What every view is: a table, a picture, and how both print."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from steer.errors import MissingExtraError
from steer.show import Result, card_html
from steer.show._markup import escaped
from steer.view._checks import check_among
from steer.view._drawing import image_html, new_figure, tidy


@dataclass(frozen=True, slots=True)
class Panel:
    """One part of a picture.

    Args:
        draw: Draws it into matplotlib axes.
        width: In inches.
        height: In inches.
    """

    draw: Callable[[Any], None]
    width: float = 4.4
    height: float = 3.2


class View(Result):
    """A result with a table and a picture: a notebook shows both, a terminal the table."""

    __slots__ = ()

    @property
    @abstractmethod
    def panels(self) -> Mapping[str, Panel]:
        """The parts of the picture by name, from left to right."""

    def plot(self, ax: Any = None, *, panel: str | None = None) -> Any:
        """Draw the picture.

        Args:
            ax: Matplotlib axes to draw one panel into; without them a new figure is made.
            panel: One panel, by name; without it a new figure has all, and axes get the first.

        Returns:
            The matplotlib figure. It belongs to no window: `figure.savefig("view.pdf")`.

        Raises:
            MissingExtraError: matplotlib is not installed.
            SelectionError: There is no such panel.
        """
        panels = self.panels
        if panel is not None:
            check_among("panel", panel, panels)
        if ax is not None:
            panels[panel or next(iter(panels))].draw(ax)
            tidy([ax])
            return ax.figure
        shown = [panels[panel]] if panel else list(panels.values())
        widths = [p.width for p in shown]
        figure = new_figure(sum(widths), max(p.height for p in shown))
        axes = figure.subplots(1, len(shown), squeeze=False, width_ratios=widths)[0]
        for part, axis in zip(shown, axes, strict=True):
            part.draw(axis)
        tidy(figure.axes)
        return figure

    def _repr_html_(self) -> str:
        return card_html(self._card()) + self._image()

    def _image(self) -> str:
        """Return the picture as HTML; without matplotlib, how to get it."""
        try:
            return image_html(self.plot(), escaped(self.title))
        except MissingExtraError as error:
            return f"<p><i>{escaped(f'{error.what}: {error.do}')}</i></p>"
