"""Log-probabilities of given responses under many settings of one composition.

For some texts at a time, the blocks up to the first steered one run once, over every shared
beginning once. The blocks above it run once for the rows that all settings share, whose keys and
values are kept, and in batches of settings for the rows that vary. A setting whose coefficients
are 0 at the lowest layers starts at the first layer that it changes. The unembedding runs at
scored positions only.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Composition, Scope
from steer.engine._attention import Memory, PackedForward
from steer.engine._base import Batch
from steer.engine._branches.cut import Start, at_rows, run_above, run_below
from steer.engine._branches.scores import score
from steer.engine._layout import Pack, RowSet, pack, split
from steer.engine._reading import Hidden, device_of
from steer.engine._steps import BoundSteps, Steps, TokenMask, scope_tokens, scopes_of, steps_of
from steer.network import Architecture, block_output, replace_output

Settings = Float[Tensor, "setting domain"]
Done = Callable[[int], object]


@torch.no_grad()
def branched_scores(
    architecture: Architecture,
    composition: Composition,
    settings: Settings,
    batch: Batch,
    before: Sequence[Float[Tensor, "pos vocab"]] | None = None,
    *,
    max_tokens: int,
    done: Done = lambda n: None,
) -> list[Float[Tensor, "setting pos score"]]:
    """Return log p of each response token under each setting, without the gate.

    With `before`, log-probabilities of all tokens without steering, KL(steered‖unsteered) is the
    second score.
    """
    found: list[Tensor] = [torch.empty(0)] * len(batch.ids)
    starts = _starts(composition, settings)
    widest = max((len(which) for _, which in starts), default=1)
    for rows in _texts(batch, max(1, max_tokens // widest)):
        tables = None if before is None else [before[row] for row in rows]
        scorer = _Scorer(architecture, steps_of(composition), batch, rows, tables)
        for row, scored in zip(rows, scorer.run(settings, starts, max_tokens, done), strict=True):
            found[row] = scored
    return found


def _starts(composition: Composition, settings: Settings) -> list[tuple[int, Tensor]]:
    """Return the layers at which settings start, ascending, and which settings do there."""
    own = [part.vector.layers for part in composition.parts.values()]
    last = max(layer for layers in own for layer in layers)
    first = [
        min((min(own[k]) for k, c in enumerate(row) if c != 0 and own[k]), default=last)
        for row in settings.tolist()
    ]
    return [
        (layer, torch.tensor([k for k, at in enumerate(first) if at == layer]))
        for layer in sorted({*first})
    ]


def _texts(batch: Batch, max_tokens: int) -> Iterator[list[int]]:
    """Yield rows to be laid out together: those of one prompt, or of several that are short."""
    order = sorted(range(len(batch.ids)), key=lambda r: batch.ids[r])
    rows: list[int] = []
    size = 0
    for row in order:
        ids, prompt = batch.ids[row], batch.ids[row][: batch.prompt_lengths[row]]
        same = bool(rows) and batch.ids[rows[-1]][: batch.prompt_lengths[rows[-1]]] == prompt
        if rows and not same and size >= max_tokens:
            yield rows
            rows, size = [], 0
        rows.append(row)
        size += len(ids) - (len(prompt) if same else 0)
    if rows:
        yield rows


@dataclass(frozen=True, slots=True)
class _Text:
    """Some rows of a batch, laid out."""

    pack: Pack  # without each row's last token, which predicts nothing that is scored
    shared: RowSet  # rows that are the same under every setting
    varying: RowSet  # the others
    members: dict[Scope, Tensor]  # for each scope, which rows it means
    # for each row of the batch, the pack's row and the token of each score
    wanted: tuple[tuple[tuple[int, int], ...], ...]


def _laid_out(used: Sequence[Scope], batch: Batch, rows: Sequence[int]) -> _Text:
    keyed = []
    for row in rows:
        ids, length = batch.ids[row][:-1], batch.prompt_lengths[row]
        marks = [scope_tokens(scope, len(ids), length).tolist() for scope in used]
        # rows are shared only where every scope means them alike
        bits = [sum(m[i] << k for k, m in enumerate(marks)) for i in range(len(ids))]
        keyed.append([token << len(used) | bit for token, bit in zip(ids, bits, strict=True)])
    packed = pack(keyed)
    bits = [token & ((1 << len(used)) - 1) for token in packed.ids]
    packed = replace(packed, ids=tuple(token >> len(used) for token in packed.ids))
    shared, varying = split(packed, [bool(bit) for bit in bits])
    found = torch.tensor(bits)
    wanted = []
    for row, spans in zip(rows, packed.spans, strict=True):
        at = [r for start, stop in spans for r in range(start, stop)]
        first = batch.prompt_lengths[row]
        wanted.append(tuple(zip(at[first - 1 :], batch.ids[row][first:], strict=True)))
    masks = {scope: (found >> k & 1).bool() for k, scope in enumerate(used)}
    return _Text(packed, shared, varying, masks, tuple(wanted))


class _Scorer:
    """Scores one text under all settings."""

    def __init__(
        self,
        architecture: Architecture,
        steps: Steps,
        batch: Batch,
        rows: Sequence[int],
        before: Sequence[Tensor] | None,
    ) -> None:
        self._architecture, self._steps = architecture, steps
        self._text = text = _laid_out(scopes_of(steps), batch, rows)
        self._device = device_of(architecture)
        self._memory: Memory = {}
        self._before: dict[int, Tensor] | None = None
        if before is not None:
            self._before = {
                at: row
                for wanted, table in zip(text.wanted, before, strict=True)
                for (at, _), row in zip(wanted, table, strict=True)
            }

    def run(
        self,
        settings: Settings,
        starts: Sequence[tuple[int, Tensor]],
        max_tokens: int,
        done: Done,
    ) -> list[Tensor]:
        """Return the scores of each row of the text, `[setting pos score]`."""
        text, count = self._text, len(settings)
        start = self._below((-1, None), min(self._steps))
        shared = self._shared(start)
        size = max(1, max_tokens // max(1, len(text.varying.rows)))
        parts = []
        for layer, which in starts if text.varying.rows else ():
            start = self._below(start, layer)
            batches = -(-len(which) // size)
            for part in which.split(-(-len(which) // batches)):
                parts.append(self._varying(start, settings[part]))
                done(len(part) * len(text.wanted))
        if not parts:
            done(count * len(text.wanted))
            return self._joined(shared, None, count)
        order = torch.cat([which for _, which in starts])
        return self._joined(shared, torch.cat(parts)[order.argsort()], count)

    def _below(self, start: Start, layer: int) -> Start:
        """Return a layer with its unsteered output for every row, computed from a lower one."""
        if start[0] == layer or layer < 0:
            return layer, start[1]
        whole = self._text.pack.all_rows()
        inputs = self._text.pack.inputs(whole.rows, self._device)
        forward = PackedForward(whole.runs)
        return layer, run_below(self._architecture, start, layer, inputs, forward)

    def _shared(self, start: Start) -> Tensor:
        """Return the scores of the shared rows, and keep their keys and values."""
        rows = self._text.shared
        if not rows.rows or not (self._wanted(rows) or self._text.varying.rows):
            return torch.empty(1, 0, 1)
        return self._scored(rows, start, PackedForward(rows.runs, self._memory, keep=True))

    def _varying(self, start: Start, settings: Settings) -> Tensor:
        """Return the scores of the varying rows under settings that start at one layer."""
        rows = self._text.varying
        at = torch.tensor(rows.rows)
        own = {scope: self._mask(mask[at]) for scope, mask in self._text.members.items()}
        bound = BoundSteps(self._steps, settings)
        forward = PackedForward(rows.runs, self._memory)
        change = partial(bound.apply, tokens=own.__getitem__)
        return self._scored(rows, start, forward, change, len(settings))

    def _mask(self, members: Tensor) -> TokenMask:
        if not bool(members.any()):
            return False
        return None if bool(members.all()) else members.to(self._device)[None, :, None]

    def _scored(
        self,
        rows: RowSet,
        start: Start,
        forward: PackedForward,
        change: Callable[[int, Hidden], Hidden] | None = None,
        count: int = 1,
    ) -> Tensor:
        first, below = start
        if first >= 0:
            below = at_rows(below, torch.tensor(rows.rows))
            h = block_output(below)
            h = h if change is None else change(first, h)
            below = replace_output(below, h.expand(count, -1, -1).contiguous())
        above = [n for n in self._steps if n > first or first < 0]
        inputs = self._text.pack.inputs(rows.rows, self._device, count)
        changes = {} if change is None else {layer: partial(change, layer) for layer in above}
        h = run_above(self._architecture, (first, below), inputs, forward, changes)
        tables = None
        if self._before is not None:
            at = enumerate(rows.rows)
            tables = {k: self._before[row] for k, row in at if row in self._before}
        return score(self._architecture, h, self._wanted(rows), tables)

    def _wanted(self, rows: RowSet) -> list[tuple[int, int]]:
        """Return row, counted in a forward, and token of each score there."""
        column = {row: k for k, row in enumerate(rows.rows)}
        pairs = {pair for wanted in self._text.wanted for pair in wanted if pair[0] in column}
        return [(column[row], token) for row, token in sorted(pairs)]

    def _joined(self, shared: Tensor, varying: Tensor | None, count: int) -> list[Tensor]:
        """Return the scores of both kinds of rows, row by row of the batch."""
        text = self._text
        columns: dict[tuple[int, int], Tensor] = {}
        for rows, scored in ((text.shared, shared), (text.varying, varying)):
            if scored is None:
                continue
            for k, (row, token) in enumerate(self._wanted(rows)):
                columns[rows.rows[row], token] = scored[:, k].expand(count, -1)
        return [torch.stack([columns[pair] for pair in wanted], dim=1) for wanted in text.wanted]
