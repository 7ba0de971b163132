"""Several token sequences in one row, with shared beginnings held once.

Sequences that begin with the same tokens have the same residual stream there, since attention
looks back only. A pack lays them out in lexicographic order, so that each sequence continues the
one before it from the token where they part::

    sequences   P A        P B          rows   P A B
    positions   0 1 .. n   0 1 .. m            0 1 .. n  p .. m

B attends to the rows of P and to its own. This holds for any depth: a system message shared by
all, a prompt shared by two, the first words of two answers.

Steering changes a sequence from its first steered token on. The rows before it are shared by all
settings and run once; the varying rows run once per setting.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steer.pairs._common_prefix import common_prefix_length

Spans = tuple[tuple[int, int], ...]
SHORTEST = 8  # tokens; a shorter beginning costs more in attention calls than it saves


@dataclass(frozen=True, slots=True)
class Place:
    """Tokens of one sequence whose residual stream is averaged."""

    sequence: int  # index in the batch
    tokens: tuple[int, ...]  # indices in the sequence, at least one


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive rows of one forward that continue one sequence."""

    start: int
    stop: int
    before: Spans  # rows of this forward that hold earlier tokens of the sequence, in order
    shared: Spans = ()  # rows of an earlier forward that hold the tokens before those

    @property
    def depth(self) -> int:
        """Number of earlier tokens, which is the position of the first row."""
        return sum(stop - start for start, stop in (*self.shared, *self.before))


@dataclass(frozen=True, slots=True)
class RowSet:
    """The rows of a pack that one forward computes."""

    rows: tuple[int, ...]  # which rows of the pack, ascending
    runs: tuple[Run, ...]  # the same rows, counted in this forward, in order


@dataclass(frozen=True, slots=True)
class Pack:
    """Sequences laid out in one row."""

    ids: tuple[int, ...]  # of each row
    positions: tuple[int, ...]  # of each row in its sequence
    runs: tuple[Run, ...]  # in order; together they are all rows
    spans: tuple[Spans, ...]  # for each sequence, the rows that hold it, in order

    def rows(self, place: Place) -> list[int]:
        """Return the rows that hold the tokens of a place."""
        rows = [row for start, stop in self.spans[place.sequence] for row in range(start, stop)]
        return [rows[token] for token in place.tokens]

    def all_rows(self) -> RowSet:
        """Return all rows as one forward."""
        return RowSet(tuple(range(len(self.ids))), self.runs)

    def inputs(
        self, rows: Iterable[int], device: torch.device, count: int = 1
    ) -> dict[str, Tensor]:
        """Return the arguments of a forward over some rows, `count` times side by side."""
        rows = list(rows)
        ids = torch.tensor([[self.ids[row] for row in rows]], device=device)
        positions = torch.tensor([[self.positions[row] for row in rows]], device=device)
        return {"input_ids": ids.expand(count, -1), "position_ids": positions.expand(count, -1)}


def pack(sequences: Sequence[Sequence[int]]) -> Pack:
    """Return non-empty sequences in one row, shared beginnings once."""
    ids: list[int] = []
    positions: list[int] = []
    runs: list[Run] = []
    spans: list[Spans] = [()] * len(sequences)
    last: int | None = None
    for index in sorted(range(len(sequences)), key=lambda i: tuple(sequences[i])):
        sequence = sequences[index]
        before = () if last is None else _common(sequences[last], sequence, spans[last])
        known = sum(stop - start for start, stop in before)
        start = len(ids)
        ids += sequence[known:]
        positions += range(known, len(sequence))
        if len(ids) > start:
            runs.append(Run(start, len(ids), before))
        spans[index] = _joined(before, (start, len(ids)))
        last = index
    return Pack(tuple(ids), tuple(positions), tuple(runs), tuple(spans))


def unique_tokens(sequences: Sequence[Sequence[int]]) -> int:
    """Return the number of rows that `pack` needs for some sequences."""
    return len(pack(sequences).ids)


def split(pack: Pack, steered: Sequence[bool]) -> tuple[RowSet, RowSet]:
    """Return the rows that all settings share and those that vary, given where settings act."""
    varying = _varying(pack, steered)
    index, counts = [], [0, 0]
    for flag in varying:
        index.append(counts[flag])
        counts[flag] += 1

    def part(spans: Iterable[tuple[int, int]], which: bool) -> Spans:
        found = []
        for start, stop in spans:
            rows = [row for row in range(start, stop) if varying[row] is which]
            if rows:
                found.append((index[rows[0]], index[rows[-1]] + 1))
        return tuple(found)

    def row_set(which: bool) -> RowSet:
        runs = []
        for run in pack.runs:
            whole = (run.start, run.stop)
            for own in part([whole], which):
                shared = part([*run.before, whole], False) if which else ()
                runs.append(Run(*own, part(run.before, which), shared))
        return RowSet(tuple(r for r, flag in enumerate(varying) if flag is which), tuple(runs))

    return row_set(False), row_set(True)


def _varying(pack: Pack, steered: Sequence[bool]) -> list[bool]:
    """Return whether each row, or one that it attends to, is steered."""
    varying = [False] * len(steered)
    for run in pack.runs:
        flag = bool(run.before) and varying[run.before[-1][1] - 1]
        for row in range(run.start, run.stop):
            flag = flag or steered[row]
            varying[row] = flag
    return varying


def _common(left: Sequence[int], right: Sequence[int], spans: Spans) -> Spans:
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
