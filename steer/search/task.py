"""What a strategy is given: the settings, how to try them, and how far it may go."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from tqdm.auto import tqdm

from steer.search.limits import Limits
from steer.search.space import Index, Space
from steer.search.tried import Rank, Tried

Measure = Callable[[Sequence[tuple[float, ...]]], Sequence[Tried]]
_TOGETHER = 64  # settings handed to the kernel at once


class Task:
    """A search under way; settings are tried through it, each once.

    Args:
        space: The settings.
        measure: Measures some settings, given as coefficients.
        limits: What settings must keep.
        seed: Seed of whatever a strategy draws.
        budget: The most settings that are tried; None leaves it to the strategy.
        fingerprint: Identifies the request, so that a saved search is resumed by the same only;
            empty if nothing does: the objective has no name of its own.
        progress: Whether to show a progress bar.
        most: The most settings that the bar counts to; all, if nothing is said.
    """

    def __init__(
        self,
        space: Space,
        measure: Measure,
        limits: Limits,
        *,
        seed: int = 0,
        budget: int | None = None,
        fingerprint: str = "",
        progress: bool = False,
        most: int | None = None,
    ) -> None:
        self.space, self.limits, self.seed = space, limits, seed
        self.budget, self.fingerprint = budget, fingerprint
        self.tried: dict[Index, Tried] = {}
        self.evaluated = 0
        self._measure = measure
        self._bar = tqdm(
            total=min(len(space), most or len(space)), desc="select", disable=not progress
        )

    def evaluate(self, indices: Iterable[Index], most: int | None = None) -> list[Index]:
        """Try settings that have not been tried.

        Args:
            indices: Settings; those outside the space and those known are passed over.
            most: How many at most; the rest is passed over too.

        Returns:
            Those that were tried now, in the order given.
        """
        new = list(islice(self._unknown(indices), most))
        for k in range(0, len(new), _TOGETHER):
            part = new[k : k + _TOGETHER]
            found = self._measure([self.space.coefficients(index) for index in part])
            self.tried |= dict(zip(part, found, strict=True))
            self.evaluated += len(part)
            self._bar.update(len(part))
        return new

    def _unknown(self, indices: Iterable[Index]) -> Iterator[Index]:
        """Yield what has not been tried, each once, without listing what comes after."""
        given: set[Index] = set()
        for index in indices:
            if index in self.space and index not in self.tried and index not in given:
                given.add(index)
                yield index

    def take(self, index: Index, tried: Tried) -> None:
        """Take over what was measured by another process, or before an interruption.

        Args:
            index: The setting.
            tried: What was measured.
        """
        self.tried.setdefault(index, tried)

    def rank(self, index: Index) -> Rank:
        """Return what orders settings that were tried; greater is better.

        Args:
            index: A setting that was tried.
        """
        tried = self.tried[index]
        return tried.rank(self.limits.violation(tried))

    def best(self, count: int) -> list[Index]:
        """Return the best settings tried, best first; ties go by the order of the grid.

        Args:
            count: How many.
        """
        return sorted(sorted(self.tried), key=self.rank, reverse=True)[:count]

    def close(self) -> None:
        """End the progress bar."""
        self._bar.close()
