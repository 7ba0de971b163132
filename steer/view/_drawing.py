"""Figures of charts, drawn by matplotlib, which is imported when it is needed."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from steer.errors import MissingExtraError
from steer.show import Chart


def figure_of(rows: Sequence[Sequence[Chart]], *, legend: str | None = None) -> Any:
    """Return a matplotlib figure with a row of axes for each row of charts.

    With `legend`, its title, the charts share axes and one legend at the right.
    """
    return plotting().draw(rows, legend=legend)


def plotting() -> Any:
    """Return the module that imports matplotlib, or raise `MissingExtraError`."""
    try:
        return import_module("steer.view._picture")
    except ImportError as error:
        raise MissingExtraError(
            "a picture needs matplotlib",
            found="it is not installed",
            expected="the extra 'plot'",
            do="pip install 'residual-steer[plot]'",
        ) from error
