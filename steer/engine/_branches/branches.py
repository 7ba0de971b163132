"""Log-probabilities of given responses under many settings of one composition.

For some texts at a time: the blocks up to the first steered one run once, over every shared
beginning once; then the blocks above it, once for the rows that no setting changes, whose keys and
values are kept, and in batches of settings for the rows that may change. A setting whose
coefficients are 0 at the lowest layers starts at the first layer that it changes. The unembedding
runs at scored positions only.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Composition, Residual, Site
from steer.engine._base import Batch
from steer.engine._branches.attention import Attending, Memory
from steer.engine._branches.cut import rows_of, run_above, run_below
from steer.engine._branches.injection import Injection, members, scopes
from steer.engine._branches.layout import Half, halves
from steer.engine._branches.scores import score
from steer.engine._reading import device_of
from steer.engine._tree import Pack, pack
from steer.network import Architecture, block_output, replace_output

Settings = Float[Tensor, "setting domain"]
Done = Callable[[int], object]


@torch.no_grad()
def branched_logprobs(
    architecture: Architecture,
    composition: Composition,
    settings: Settings,
    batch: Batch,
    *,
    max_tokens: int,
    done: Done = lambda n: None,
) -> list[Float[Tensor, "setting pos"]]:
    """Return log p(response token) of each row under each setting, without the gate."""
    found = _branched(architecture, composition, settings, batch, None, max_tokens, done)
    return [row[..., 0] for row in found]


@torch.no_grad()
def branched_divergences(
    architecture: Architecture,
    composition: Composition,
    settings: Settings,
    batch: Batch,
    before: Sequence[Float[Tensor, "pos vocab"]],
    *,
    max_tokens: int,
) -> list[Float[Tensor, "setting pos 2"]]:
    """Return, at each response token, its log p and KL(steered‖unsteered) under each setting."""
    return _branched(architecture, composition, settings, batch, before, max_tokens, lambda n: None)


def _branched(
    architecture: Architecture,
    composition: Composition,
    settings: Settings,
    batch: Batch,
    before: Sequence[Tensor] | None,
    max_tokens: int,
    done: Done,
) -> list[Tensor]:
    """Return what is read at every response token, `[setting pos read]`, for each row."""
    found: list[Tensor] = [torch.empty(0)] * len(batch.ids)
    starts = _starts(composition, settings)
    widest = max((len(which) for _, which in starts), default=1)
    for rows in _texts(batch, max(1, max_tokens // widest)):
        tables = None if before is None else [before[row] for row in rows]
        task = _Task(architecture, composition, _laid_out(composition, batch, rows), tables)
        for row, scored in zip(rows, task.run(settings, starts, max_tokens, done), strict=True):
            found[row] = scored
    return found


def _layers(sites: Sequence[Site]) -> tuple[int, ...]:
    return tuple(sorted({site.layer for site in sites if isinstance(site, Residual)}))


def _starts(composition: Composition, settings: Settings) -> list[tuple[int, Tensor]]:
    """Return the layers at which settings start, ascending, and which settings do there."""
    layers = _layers(composition.sites)
    own = [_layers(part.vector.sites) for part in composition.parts.values()]
    first = [
        min((own[k][0] for k, c in enumerate(row) if c != 0 and own[k]), default=layers[-1])
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

    pack: Pack  # the layout, without each row's last token, which predicts nothing that is scored
    still: Half  # rows of it that are the same under every setting
    moved: Half  # the others
    members: dict[Any, Tensor]  # for each scope, which rows it means
    # For each row of the batch, the pack's row and the token of each score
    wanted: tuple[tuple[tuple[int, int], ...], ...]


def _laid_out(composition: Composition, batch: Batch, rows: Sequence[int]) -> _Text:
    used = scopes(composition)
    keyed, marks = [], []
    for row in rows:
        ids, length = batch.ids[row][:-1], batch.prompt_lengths[row]
        mark = [members(scope, range(len(ids)), length).tolist() for scope in used]
        marks.append(mark)
        # rows are shared only where every scope means them alike
        bits = [sum(m[i] << k for k, m in enumerate(mark)) for i in range(len(ids))]
        keyed.append([token << len(used) | bit for token, bit in zip(ids, bits, strict=True)])
    packed = pack(keyed)
    bits = [token & ((1 << len(used)) - 1) for token in packed.ids]
    packed = replace(packed, ids=tuple(token >> len(used) for token in packed.ids))
    still, moved = halves(packed, [bool(bit) for bit in bits])
    found = torch.tensor(bits)
    wanted = []
    for row, spans in zip(rows, packed.spans, strict=True):
        at = [r for start, stop in spans for r in range(start, stop)]
        first = batch.prompt_lengths[row]
        wanted.append(tuple(zip(at[first - 1 :], batch.ids[row][first:], strict=True)))
    masks = {scope: (found >> k & 1).bool() for k, scope in enumerate(used)}
    return _Text(packed, still, moved, masks, tuple(wanted))


class _Task:
    """One text under all settings."""

    def __init__(
        self,
        architecture: Architecture,
        composition: Composition,
        text: _Text,
        before: Sequence[Tensor] | None,
    ) -> None:
        self._architecture = architecture
        self._composition = composition
        self._text = text
        self._device = device_of(architecture)
        self._layers = _layers(composition.sites)
        self._memory: Memory = {}
        self._before: dict[int, Tensor] | None = None
        if before is not None:
            whole = zip(text.wanted, before, strict=True)
            self._before = {
                at: row
                for wanted, table in whole
                for (at, _), row in zip(wanted, table, strict=True)
            }

    def run(
        self,
        settings: Settings,
        starts: Sequence[tuple[int, Tensor]],
        max_tokens: int,
        done: Done,
    ) -> list[Tensor]:
        """Return what is read of each row of the text, `[setting pos read]`."""
        text, count = self._text, len(settings)
        at, below = self._layers[0], self._below((-1, None), self._layers[0])
        scored = {False: self._still(below)}
        size = max(1, max_tokens // max(1, len(text.moved.rows)))
        parts = []
        for layer, which in starts if text.moved.rows else ():
            below = self._below((at, below), layer)
            at = layer
            batches = -(-len(which) // size)
            for part in which.split(-(-len(which) // batches)):
                parts.append(self._moved((layer, below), settings[part]))
                done(len(part) * len(text.wanted))
        if parts:
            order = torch.cat([which for _, which in starts])
            scored[True] = torch.cat(parts)[order.argsort()]
        else:
            done(count * len(text.wanted))
        return self._joined(scored, count)

    def _below(self, known: tuple[int, Any], layer: int) -> Any:
        """Return what a block returned, unsteered, for every row, from what a lower one did."""
        if known[0] == layer or layer < 0:
            return known[1]
        whole, _ = halves(self._text.pack, [False] * len(self._text.pack.ids))
        task = Attending(whole.branches, {})
        ids, positions = self._inputs(whole, 1)
        return run_below(self._architecture, layer, ids, positions, task, known)

    def _still(self, below: Any) -> Tensor:
        """Return what is read of the still rows, and keep their keys and values."""
        half = self._text.still
        wanted = self._wanted(half)
        if not half.rows or not (wanted or self._text.moved.rows):
            return torch.empty(1, 0, 1)
        task = Attending(half.branches, self._memory, keep=True)
        h = self._above(half, (self._layers[0], below), 1, task, None)
        return score(self._architecture, h, wanted, self._tables(half))

    def _moved(self, below: tuple[int, Any], settings: Settings) -> Tensor:
        """Return what is read of the moved rows under some settings that start at one layer."""
        half = self._text.moved
        at = torch.tensor(half.rows)
        own = {scope: mask[at] for scope, mask in self._text.members.items()}
        injection = Injection(self._composition, settings, own)
        task = Attending(half.branches, self._memory)
        h = self._above(half, below, len(settings), task, injection)
        return score(self._architecture, h, self._wanted(half), self._tables(half))

    def _above(
        self,
        half: Half,
        known: tuple[int, Any],
        count: int,
        task: Attending,
        injection: Injection | None,
    ) -> Tensor:
        first, below = known
        ids, positions = self._inputs(half, count)
        if first >= 0:
            below = rows_of(below, torch.tensor(half.rows))
            h = block_output(below)
            h = h if injection is None else injection.apply(first, h)
            below = replace_output(below, h.expand(count, -1, -1).contiguous())
        steered = tuple(n for n in self._layers if n > first or first < 0)
        change = ((), _same) if injection is None else (steered, injection.apply)
        return run_above(self._architecture, first, below, ids, positions, task, change)

    def _inputs(self, half: Half, count: int) -> tuple[Tensor, Tensor]:
        pack, rows = self._text.pack, half.rows
        ids = torch.tensor([[pack.ids[row] for row in rows]], device=self._device)
        positions = torch.tensor([[pack.positions[row] for row in rows]], device=self._device)
        return ids.expand(count, -1), positions.expand(count, -1)

    def _wanted(self, half: Half) -> list[tuple[int, int]]:
        column = {row: k for k, row in enumerate(half.rows)}
        pairs = {pair for wanted in self._text.wanted for pair in wanted if pair[0] in column}
        return [(column[row], token) for row, token in sorted(pairs)]

    def _tables(self, half: Half) -> dict[int, Tensor] | None:
        """Return the unsteered log-probabilities at the rows of a half, by their place in it."""
        known = self._before
        if known is None:
            return None
        return {k: known[row] for k, row in enumerate(half.rows) if row in known}

    def _joined(self, scored: dict[bool, Tensor], count: int) -> list[Tensor]:
        """Put what was read of both halves together, row by row of the batch."""
        text = self._text
        place: dict[tuple[int, int], tuple[bool, int]] = {}
        for which, half in ((False, text.still), (True, text.moved)):
            for k, (row, token) in enumerate(self._wanted(half)):
                place[half.rows[row], token] = (which, k)
        return [
            torch.stack(
                [
                    scored[which][:, k].expand(count, -1)
                    for which, k in map(place.__getitem__, wanted)
                ],
                dim=1,
            )
            for wanted in text.wanted
        ]


def _same(layer: int, h: Tensor) -> Tensor:
    return h
