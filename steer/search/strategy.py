"""How settings are searched: anything with one method, by name or as an object."""

from collections.abc import Callable
from typing import Protocol

from steer.errors import SelectionError
from steer.search.coarse import CoarseToFine
from steer.search.grid import Grid
from steer.search.studies import Optuna
from steer.search.task import Task


class Strategy(Protocol):
    """A way to search: it tries settings through the task until it is content."""

    def search(self, task: Task) -> None:
        """Try settings.

        Args:
            task: What to search; `task.evaluate` tries settings, `task.rank` orders them.
        """


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "grid": Grid,
    "coarse_to_fine": CoarseToFine,
    "optuna": Optuna,
}


def strategy_of(how: str | Strategy) -> Strategy:
    """Return a strategy.

    Args:
        how: Its name, or one.

    Raises:
        SelectionError: There is none of that name.
    """
    if not isinstance(how, str):
        return how
    if how not in STRATEGIES:
        raise SelectionError(
            "unknown way to search",
            found=repr(how),
            expected=f"{' | '.join(STRATEGIES)}, or an object with a method search(task)",
            do="how='coarse_to_fine'",
        )
    return STRATEGIES[how]()
