"""Which tokens a setting can change, and what the changed ones attend to.

Attention looks back only, so what precedes the first steered token of a sequence is the same under
every setting, and everything from there on may differ. A pack (`steer.engine.tree`) falls apart
into its still rows and its moved rows: the still ones run once, the moved ones once per setting.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from steer.engine._tree import Pack, Spans


@dataclass(frozen=True, slots=True)
class Branch:
    """Consecutive rows of one forward that continue one sequence."""

    start: int  # first row
    stop: int  # row after the last
    still: Spans  # spans of still rows, computed before, that hold earlier tokens of the sequence
    before: Spans  # spans of rows of this forward that hold the tokens between those and its own

    @property
    def depth(self) -> int:
        """Number of earlier tokens, which is the position of the first row."""
        return sum(stop - start for start, stop in (*self.still, *self.before))


@dataclass(frozen=True, slots=True)
class Half:
    """The still or the moved rows of a pack."""

    rows: tuple[int, ...]  # which rows of the pack they are, ascending
    # The same rows as branches; together they are all of them, in order
    branches: tuple[Branch, ...]


def halves(pack: Pack, steered: Sequence[bool]) -> tuple[Half, Half]:
    """Return the still and the moved rows of a pack."""
    moved = _moved(pack, steered)
    index, counts = [], [0, 0]
    for flag in moved:
        index.append(counts[flag])
        counts[flag] += 1
    parts = [_half(pack, moved, index, which) for which in (False, True)]
    return parts[0], parts[1]


def _moved(pack: Pack, steered: Sequence[bool]) -> list[bool]:
    """Return whether each row or one that it attends to is steered."""
    moved = [False] * len(steered)
    for run in pack.runs:
        flag = bool(run.before) and moved[run.before[-1][1] - 1]
        for row in range(run.start, run.stop):
            flag = flag or steered[row]
            moved[row] = flag
    return moved


def _half(pack: Pack, moved: Sequence[bool], index: Sequence[int], which: bool) -> Half:
    branches = []
    for run in pack.runs:
        own = _cut([(run.start, run.stop)], moved, index, which)
        if not own:
            continue
        still = _cut([*run.before, (run.start, run.stop)], moved, index, False) if which else ()
        before = _cut(run.before, moved, index, which)
        branches.append(Branch(*own[0], still, before))
    return Half(tuple(row for row, flag in enumerate(moved) if flag is which), tuple(branches))


def _cut(
    spans: Sequence[tuple[int, int]], moved: Sequence[bool], index: Sequence[int], which: bool
) -> Spans:
    """Return the still or moved part of some spans, counted in the rows of that half."""
    return tuple(_parts(spans, moved, index, which))


def _parts(
    spans: Sequence[tuple[int, int]], moved: Sequence[bool], index: Sequence[int], which: bool
) -> Iterator[tuple[int, int]]:
    for start, stop in spans:
        rows = [row for row in range(start, stop) if moved[row] is which]
        if rows:
            yield index[rows[0]], index[rows[-1]] + 1
