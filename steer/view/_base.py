"""The base class of views: a result with charts, which matplotlib plots."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from steer._check import need, one_of
from steer.show import Card, Chart, Result
from steer.show._rows import table_of


class View(Result):
    """A result with charts: `print` and notebooks show it, and `plot` draws it with matplotlib."""

    __slots__ = ()

    @property
    @abstractmethod
    def panels(self) -> Mapping[str, Chart]:
        """The charts by name, from left to right."""

    def plot(self, ax: Any = None, *, panel: str | None = None) -> Any:
        """Draw the charts with matplotlib.

        Args:
            ax: Matplotlib axes to draw one panel into; without them a new figure is made.
            panel: One panel, by name; without it a new figure has all, and axes get the first.

        Returns:
            The matplotlib figure. It belongs to no window: `figure.savefig("view.pdf")`.

        Raises:
            MissingExtraError: matplotlib is not installed.
            ArgumentError: There is no such panel.
        """
        charts = list(self.panels.values())
        if panel is not None:
            charts = [self.panels[one_of("panel", panel, self.panels)]]
        return figure_of([charts], ax)

    def _card(self) -> Card:
        return Card(self.title, (), (*self.panels.values(), table_of(self.rows)))


def figure_of(rows: Sequence[Sequence[Chart]], ax: Any = None) -> Any:
    """Return a matplotlib figure with axes for each chart, or draw the first into given axes."""
    need("a picture", "matplotlib", extra="plot")
    from steer.view._picture import draw, draw_into

    if ax is None:
        return draw(rows)
    draw_into(ax, rows[0][0])
    return ax.figure
