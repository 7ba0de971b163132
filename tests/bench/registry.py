"""The groups of figures, by name, and what each is given."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.bench.lines import Line
from tests.bench.rounds import Budget


@dataclass(frozen=True, slots=True)
class Options:
    """How to measure.

    Args:
        quick: Whether a rough look is enough: few rounds, fewer pairs where that saves minutes.
    """

    quick: bool = False

    @property
    def budget(self) -> Budget:
        """When a set of methods stops at the latest."""
        return Budget(seconds=60.0, rounds=11) if self.quick else Budget(420.0, 150)


Group = Callable[[Options], Iterator[Line]]
GROUPS: dict[str, Group] = {}


def bench(name: str) -> Callable[[Group], Group]:
    """Register a group of figures.

    Args:
        name: Its name, which its figures' names begin with.

    Raises:
        ValueError: The name is taken.
    """

    def register(group: Group) -> Group:
        if name in GROUPS:
            raise ValueError(f"a group of figures called {name!r} exists already")
        GROUPS[name] = group
        return group

    return register
