"""Several token sequences in one row, with what they share at the start held once.

Sequences that begin with the same tokens have the same residual stream there, since attention
looks back only. A pack lays them out in lexicographic order, so that each sequence continues the
one before it from the token where they part::

    sequences   P A        P B          rows   P A B
    positions   0 1 .. n   0 1 .. m            0 1 .. n  p .. m

B attends to the rows of P and to its own. This holds for any depth: a system message shared by
all, a prompt shared by two, the first words of two answers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from steer.engine._reading import Place
from steer.pairs._common_prefix import common_prefix_length

Spans = tuple[tuple[int, int], ...]
SHORTEST = 8  # tokens; a shorter beginning costs more in attention calls than it saves


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive rows that continue one sequence."""

    start: int  # first row
    stop: int  # row after the last
    before: Spans  # spans of rows that hold the sequence's earlier tokens, in order

    @property
    def depth(self) -> int:
        """Number of earlier tokens, which is the position of the first row."""
        return sum(stop - start for start, stop in self.before)


@dataclass(frozen=True, slots=True)
class Pack:
    """Sequences laid out in one row."""

    ids: tuple[int, ...]  # token id of each row
    positions: tuple[int, ...]  # position of each row in its sequence
    runs: tuple[Run, ...]  # the runs, in order; together they are all rows
    spans: tuple[Spans, ...]  # for each sequence, the spans of rows that hold it, in order

    def rows(self, place: Place) -> list[int]:
        """Return the rows that hold the tokens of a place."""
        rows = [row for start, stop in self.spans[place.sequence] for row in range(start, stop)]
        return [rows[token] for token in place.tokens]


def pack(sequences: Sequence[Sequence[int]]) -> Pack:
    """Lay sequences out in one row, shared beginnings once."""
    ids: list[int] = []
    positions: list[int] = []
    runs: list[Run] = []
    spans: list[Spans] = [()] * len(sequences)
    last: int | None = None
    for index in sorted(range(len(sequences)), key=lambda i: tuple(sequences[i])):
        sequence = sequences[index]
        before = () if last is None else _shared(sequences[last], sequence, spans[last])
        shared = sum(stop - start for start, stop in before)
        start = len(ids)
        ids += sequence[shared:]
        positions += range(shared, len(sequence))
        if len(ids) > start:
            runs.append(Run(start, len(ids), before))
        spans[index] = _joined(before, (start, len(ids)))
        last = index
    return Pack(tuple(ids), tuple(positions), tuple(runs), tuple(spans))


def unique_tokens(sequences: Sequence[Sequence[int]]) -> int:
    """Return the number of rows that `pack` needs for some sequences."""
    return len(pack(sequences).ids)


def _shared(left: Sequence[int], right: Sequence[int], spans: Spans) -> Spans:
    """Return the rows of `left` that hold the beginning it shares with `right`, if long enough."""
    length = common_prefix_length(left, right)
    if length < min(SHORTEST, len(right)):
        return ()
    return tuple(_cut(spans, length))


def _cut(spans: Spans, length: int) -> Iterator[tuple[int, int]]:
    for start, stop in spans:
        if length <= 0:
            return
        yield start, min(stop, start + length)
        length -= stop - start


def _joined(before: Spans, own: tuple[int, int]) -> Spans:
    """Return spans with one more at the end, joined where it continues the last."""
    if own[0] == own[1]:
        return before
    if before and before[-1][1] == own[0]:
        return (*before[:-1], (before[-1][0], own[1]))
    return (*before, own)
