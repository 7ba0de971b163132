"""Log-probabilities of given responses under many settings of one composition.

For some texts at a time: the blocks up to the first steered one run once, over every shared
beginning once; then the blocks above it, once for the rows that no setting changes, whose keys and
values are kept, and in batches of settings for the rows that may change. The unembedding runs at
scored positions only.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steer.architecture import Architecture
from steer.architecture.output import block_output, replace_output
from steer.composition import Composition
from steer.engine.base import Batch
from steer.engine.branches.attention import Attending, Memory
from steer.engine.branches.cut import rows_of, run_above, run_below
from steer.engine.branches.injection import Injection, members, scopes
from steer.engine.branches.layout import Half, halves
from steer.engine.branches.scores import score
from steer.engine.reading import device_of
from steer.engine.tree import Pack, pack
from steer.site import Residual

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
    """Return log p(response token) of each row under each setting, without the gate.

    Args:
        architecture: The model's parts; it is not being steered.
        composition: Vectors at residual sites, with their operators and scopes.
        settings: Coefficients of each setting, dimensionless; those of the composition are unused.
        batch: Prompts with the responses to be scored.
        max_tokens: Tokens of one forward, over all its settings; one setting of one text at least.
        done: Called with a number of (row, setting) scored, which add up to all of them.

    Returns:
        For each row of the batch, in nats in float32.

    Raises:
        UnpackableError: The model cannot be cut at a block.
    """
    found: list[Tensor] = [torch.empty(0)] * len(batch.ids)
    for rows in _texts(batch, max(1, max_tokens // max(1, len(settings)))):
        task = _Task(architecture, composition, _laid_out(composition, batch, rows))
        for row, scored in zip(rows, task.run(settings, max_tokens, done), strict=True):
            found[row] = scored
    return found


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
    """Some rows of a batch, laid out.

    Args:
        pack: The layout, without each row's last token, which predicts nothing that is scored.
        still: Rows of it that are the same under every setting.
        moved: The others.
        members: For each scope, which rows it means.
        wanted: For each row of the batch, the pack's row and the token of each score.
    """

    pack: Pack
    still: Half
    moved: Half
    members: dict[Any, Tensor]
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

    def __init__(self, architecture: Architecture, composition: Composition, text: _Text) -> None:
        self._architecture = architecture
        self._composition = composition
        self._text = text
        self._device = device_of(architecture)
        self._layers = tuple(
            sorted({s.layer for s in composition.sites if isinstance(s, Residual)})
        )
        self._memory: Memory = {}

    def run(self, settings: Settings, max_tokens: int, done: Done) -> list[Tensor]:
        """Return the scores of each row of the text, `[setting pos]`."""
        text, count = self._text, len(settings)
        below = self._below()
        scored = {False: self._still(below)}
        rows = max(1, len(text.moved.rows))
        batches = max(1, -(-count * rows // max_tokens))
        if text.moved.rows:
            size = -(-count // min(batches, count))
            parts = []
            for part in settings.split(size):
                parts.append(self._moved(below, part))
                done(len(part) * len(text.wanted))
            scored[True] = torch.cat(parts)
        else:
            done(count * len(text.wanted))
        return self._joined(scored, count)

    def _below(self) -> Any:
        """Return what the first steered block returned, unsteered, for every row."""
        layer = self._layers[0]
        if layer < 0:
            return None
        whole, _ = halves(self._text.pack, [False] * len(self._text.pack.ids))
        task = Attending(whole.branches, {})
        ids, positions = self._inputs(whole, 1)
        return run_below(self._architecture, layer, ids, positions, task)

    def _still(self, below: Any) -> Tensor:
        """Return the scores of the still rows, and keep their keys and values."""
        half = self._text.still
        wanted = self._wanted(half)
        if not half.rows or not (wanted or self._text.moved.rows):
            return torch.empty(1, 0)
        task = Attending(half.branches, self._memory, keep=True)
        h = self._above(half, below, 1, task, None)
        return score(self._architecture, h, wanted)

    def _moved(self, below: Any, settings: Settings) -> Tensor:
        """Return the scores of the moved rows under some settings."""
        half = self._text.moved
        at = torch.tensor(half.rows)
        own = {scope: mask[at] for scope, mask in self._text.members.items()}
        injection = Injection(self._composition, settings, own)
        task = Attending(half.branches, self._memory)
        h = self._above(half, below, len(settings), task, injection)
        return score(self._architecture, h, self._wanted(half))

    def _above(
        self, half: Half, below: Any, count: int, task: Attending, injection: Injection | None
    ) -> Tensor:
        first, *others = self._layers
        ids, positions = self._inputs(half, count)
        if first >= 0:
            below = rows_of(below, torch.tensor(half.rows))
            h = block_output(below)
            h = h if injection is None else injection.apply(first, h)
            below = replace_output(below, h.expand(count, -1, -1).contiguous())
        steered = tuple(others) if first >= 0 else self._layers
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

    def _joined(self, scored: dict[bool, Tensor], count: int) -> list[Tensor]:
        """Put the scores of both halves together, row by row of the batch."""
        text = self._text
        place: dict[tuple[int, int], tuple[bool, int]] = {}
        for which, half in ((False, text.still), (True, text.moved)):
            for k, (row, token) in enumerate(self._wanted(half)):
                place[half.rows[row], token] = (which, k)
        return [
            torch.stack(
                [scored[which][:, k].expand(count) for which, k in map(place.__getitem__, wanted)],
                dim=1,
            )
            for wanted in text.wanted
        ]


def _same(layer: int, h: Tensor) -> Tensor:
    return h
