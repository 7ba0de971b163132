"""Search by trying everything."""

from dataclasses import dataclass

from steer.search.task import Task


@dataclass(frozen=True, slots=True)
class Grid:
    """Every setting, in the order of the grid, as far as the budget goes."""

    def search(self, task: Task) -> None:
        """Try every setting.

        Args:
            task: What to search.
        """
        task.evaluate(task.space, task.budget)
