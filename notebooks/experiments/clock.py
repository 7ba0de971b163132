"""How long each step of a study took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Clock:
    """Announces steps and keeps how long each took.

    Args:
        say: Called with the name of each step as it begins.
        seconds: Wall time of each step so far.
    """

    say: Callable[[str], None] = lambda _: None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Announce and time a step.

        Args:
            name: Its name.
        """
        self.say(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
