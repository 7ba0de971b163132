"""The base class of views: a result with charts, which matplotlib plots."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from steer._check import one_of
from steer.show import Card, Chart, Result
from steer.show._rows import table_of
from steer.view._drawing import figure_of, plotting


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
        panels = self.panels
        if panel is not None:
            one_of("panel", panel, panels)
        if ax is not None:
            plotting().draw_into(ax, panels[panel or next(iter(panels))])
            return ax.figure
        return figure_of([[panels[panel]] if panel else list(panels.values())])

    def _card(self) -> Card:
        return Card(self.title, (), (*self.panels.values(), table_of(self.rows)))
