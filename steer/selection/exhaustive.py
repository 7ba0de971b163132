"""Search by measuring everything."""

from collections.abc import Sequence
from dataclasses import dataclass

from steer.selection.field import Field
from steer.selection.task import Task


@dataclass(frozen=True, slots=True)
class Exhaustive:
    """Every setting of every candidate, in order, as far as the budget goes."""

    def search(self, tasks: Sequence[Task], field: Field | None = None) -> None:
        """Measure every setting.

        Args:
            tasks: One for each candidate.
            field: Not needed.
        """
        left = tasks[0].budget
        for task in tasks:
            done = len(task.evaluate(task.space, left))
            left = None if left is None else left - done
