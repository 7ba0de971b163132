"""Log-probabilities of given responses under many settings of one composition.

For some texts at a time, the blocks up to the first steered one run once, over every shared
beginning once. The blocks above it run once for the rows that all settings share, whose keys and
values are kept, and in batches of settings for the rows that vary. A setting whose coefficients
are 0 at the lowest layers starts at the first layer that it changes. The unembedding runs at
scored positions only.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Composition
from steer.engine._attention import Memory, PackedForward
from steer.engine._base import Batch
from steer.engine._branches.cut import Start, at_rows, run_cut
from steer.engine._branches.scores import score
from steer.engine._layout import RowSet, pack, split
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


class _Scorer:
    """Scores some rows of a batch, laid out as one text, under all settings."""

    def __init__(
        self,
        architecture: Architecture,
        steps: Steps,
        batch: Batch,
        rows: Sequence[int],
        before: Sequence[Tensor] | None,
    ) -> None:
        self._architecture, self._steps = architecture, steps
        self._device = device_of(architecture)
        self._memory: Memory = {}
        scopes, keyed = scopes_of(steps), []
        for row in rows:
            # without the last token, which predicts nothing that is scored
            ids, length = batch.ids[row][:-1], batch.prompt_lengths[row]
            marks = [scope_tokens(scope, len(ids), length).tolist() for scope in scopes]
            # rows are shared only where every scope means them alike
            bits = [sum(m[i] << k for k, m in enumerate(marks)) for i in range(len(ids))]
            keyed.append([token << len(scopes) | bit for token, bit in zip(ids, bits, strict=True)])
        packed = pack(keyed)
        bits = [token & ((1 << len(scopes)) - 1) for token in packed.ids]
        self._pack = replace(packed, ids=tuple(token >> len(scopes) for token in packed.ids))
        self._shared_rows, self._varying_rows = split(packed, [bool(bit) for bit in bits])
        # for each scope, which of the pack's rows it means
        self._members = {s: torch.tensor(bits) >> k & 1 == 1 for k, s in enumerate(scopes)}
        # for each row of the batch, the pack's row and the token of each score
        self._scores: list[list[tuple[int, int]]] = []
        for row, spans in zip(rows, packed.spans, strict=True):
            at = [r for start, stop in spans for r in range(start, stop)]
            first = batch.prompt_lengths[row]
            self._scores.append([*zip(at[first - 1 :], batch.ids[row][first:], strict=True)])
        self._before: dict[int, Tensor] | None = None
        if before is not None:
            self._before = {
                at: row
                for wanted, table in zip(self._scores, before, strict=True)
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
        count, texts, varying = len(settings), len(self._scores), len(self._varying_rows.rows)
        start = self._below((-1, None), min(self._steps))
        shared = self._shared(start)
        size = max(1, max_tokens // max(1, varying))
        parts = []
        for layer, which in starts if varying else ():
            start = self._below(start, layer)
            batches = -(-len(which) // size)
            for part in which.split(-(-len(which) // batches)):
                parts.append(self._varying(start, settings[part]))
                done(len(part) * texts)
        if not parts:
            done(count * texts)
            return self._joined(shared, None, count)
        order = torch.cat([which for _, which in starts])
        return self._joined(shared, torch.cat(parts)[order.argsort()], count)

    def _below(self, start: Start, layer: int) -> Start:
        """Return a layer with its unsteered output for every row, computed from a lower one."""
        if start[0] == layer or layer < 0:
            return layer, start[1]
        whole = self._pack.all_rows()
        inputs = self._pack.inputs(whole.rows, self._device)
        forward = PackedForward(whole.runs)
        return layer, run_cut(self._architecture, start, layer, inputs, forward)[0]

    def _shared(self, start: Start) -> Tensor:
        """Return the scores of the shared rows, and keep their keys and values."""
        rows = self._shared_rows
        if not rows.rows or not (self._wanted(rows) or self._varying_rows.rows):
            return torch.empty(1, 0, 1)
        return self._scored(rows, start, PackedForward(rows.runs, self._memory, keep=True))

    def _varying(self, start: Start, settings: Settings) -> Tensor:
        """Return the scores of the varying rows under settings that start at one layer."""
        rows = self._varying_rows
        at = torch.tensor(rows.rows)
        own = {scope: self._mask(mask[at]) for scope, mask in self._members.items()}
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
        inputs = self._pack.inputs(rows.rows, self._device, count)
        changes = {} if change is None else {layer: partial(change, layer) for layer in above}
        last, start = self._architecture.n_layers - 1, (first, below)
        h = run_cut(self._architecture, start, last, inputs, forward, changes)[1]
        tables = None
        if self._before is not None:
            at = enumerate(rows.rows)
            tables = {k: self._before[row] for k, row in at if row in self._before}
        return score(self._architecture, h, self._wanted(rows), tables)

    def _wanted(self, rows: RowSet) -> list[tuple[int, int]]:
        """Return row, counted in a forward, and token of each score there."""
        column = {row: k for k, row in enumerate(rows.rows)}
        pairs = {pair for wanted in self._scores for pair in wanted if pair[0] in column}
        return [(column[row], token) for row, token in sorted(pairs)]

    def _joined(self, shared: Tensor, varying: Tensor | None, count: int) -> list[Tensor]:
        """Return the scores of both kinds of rows, row by row of the batch."""
        columns: dict[tuple[int, int], Tensor] = {}
        for rows, scored in ((self._shared_rows, shared), (self._varying_rows, varying)):
            if scored is None:
                continue
            for k, (row, token) in enumerate(self._wanted(rows)):
                columns[rows.rows[row], token] = scored[:, k].expand(count, -1)
        return [torch.stack([columns[pair] for pair in wanted], dim=1) for wanted in self._scores]
