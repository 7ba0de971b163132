"""One setting of a composition, merged into the model's weights until it leaves."""

from collections.abc import Sequence

from torch import nn

from steer.algebra import Composition, Term
from steer.engine._weights.plan import Entry
from steer.merge import merger_of


class Merging:
    """The merged weight sites of one active composition."""

    def __init__(self, model: nn.Module, entries: Sequence[Entry]) -> None:
        self._merger = merger_of(model)
        self._entries = entries

    def enter(self, composition: Composition) -> None:
        """Merge a setting."""
        self._merger.enter(self, self._deltas(composition))

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that are merged into."""
        return tuple(dict.fromkeys(entry.name for entry in self._entries))

    def update(self, composition: Composition) -> None:
        """Merge other coefficients instead; if that fails, nothing changes."""
        self._merger.update(self, self._deltas(composition))

    def check(self) -> None:
        """Raise if something else has written to the merged weights."""
        self._merger.check()

    def leave(self) -> None:
        """Take them out again, bit for bit."""
        self._merger.leave(self)

    def _deltas(self, composition: Composition) -> list[tuple[str, Term, float]]:
        c = composition.coefficients[0].tolist()
        return [(e.name, e.term, c[e.column]) for e in self._entries]
