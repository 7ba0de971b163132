"""How settings are searched: anything with one method, by name or as an object."""

from collections.abc import Callable, Sequence
from typing import Protocol

from steer.errors import SelectionError
from steer.selection.coarse import CoarseToFine
from steer.selection.exhaustive import Exhaustive
from steer.selection.field import Field
from steer.selection.outcome import Outcome
from steer.selection.race import Race
from steer.selection.studies import Optuna
from steer.selection.task import Task


class Strategy(Protocol):
    """A way to search: it measures settings through the tasks until it is content."""

    def search(self, tasks: Sequence[Task], field: Field) -> Outcome | None:
        """Measure settings.

        Args:
            tasks: One for each candidate; `task.evaluate` measures, `task.rank` orders.
            field: The candidates, and what they are measured on.

        Returns:
            What was chosen; None leaves the choice to the order of `SettingResult.rank`.
        """


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "race": Race,
    "exhaustive": Exhaustive,
    "coarse_to_fine": CoarseToFine,
    "optuna": Optuna,
}


def strategy_of(strategy: str | Strategy) -> Strategy:
    """Return a strategy.

    Args:
        strategy: Its name, or one.

    Raises:
        SelectionError: There is none of that name.
    """
    if not isinstance(strategy, str):
        return strategy
    if strategy not in STRATEGIES:
        raise SelectionError(
            "unknown strategy",
            found=repr(strategy),
            expected=f"{' | '.join(STRATEGIES)}, or an object with a method search(tasks)",
            do="strategy='race' for alternatives, 'coarse_to_fine' for several domains",
        )
    return STRATEGIES[strategy]()
