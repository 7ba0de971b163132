"""Recording forwards over packs: one dense row through the linear layers, attention run by run.

The model attends through a function of ours (`steer.engine.attention`). Where that refuses,
`steer.engine.packing` finds another way.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from steer.engine._attention import UnpackableError, attention_replaced, causal_mask, check_plain
from steer.engine._reading import Averager, Means, Place, busy_recording, device_of, run_blocks
from steer.engine._tree import Run, pack
from steer.network import Architecture

ATTENTION = "steer_packed"


class _Layout:
    """The runs of the pack that is being computed, and their masks, made once for all layers."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.calls = 0
        self._masks: dict[tuple[int, int | None, torch.device], Bool[Tensor, "pos pos"] | None] = {}

    def mask(
        self, index: int, window: int | None, device: torch.device
    ) -> Bool[Tensor, "pos pos"] | None:
        """Return who attends to whom in a run; None where it is plainly causal."""
        key = (index, window, device)
        if key not in self._masks:
            run = self.runs[index]
            self._masks[key] = causal_mask(run.depth, run.stop - run.start, window, device)
        return self._masks[key]


_LAYOUT: ContextVar[_Layout | None] = ContextVar("steer_packed_layout", default=None)


def read_packed(
    architecture: Architecture,
    sequences: Sequence[Sequence[int]],
    places: Sequence[Place],
    layers: Sequence[int],
) -> Means:
    """Average the residual stream at some places in one forward over a pack."""
    device = device_of(architecture)
    packed = pack(sequences)
    averager = Averager(
        [packed.rows(place) for place in places], len(layers), architecture.d_model, device
    )
    inputs = {
        "input_ids": torch.tensor([packed.ids], device=device),
        "position_ids": torch.tensor([packed.positions], device=device),
    }
    with _attending(architecture, _Layout(packed.runs)) as layout:
        run_blocks(architecture, layers, inputs, averager.read)
    if layout.calls <= layers[-1]:
        raise UnpackableError("its attention does not go through transformers' interface")
    return averager.means()


@contextmanager
def _attending(architecture: Architecture, layout: _Layout) -> Iterator[_Layout]:
    """Let the model's attention follow a layout, and put everything back."""
    with attention_replaced(architecture, ATTENTION, _attention, busy_recording):
        token = _LAYOUT.set(layout)
        try:
            yield layout
        finally:
            _LAYOUT.reset(token)


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend run by run, as transformers calls attention functions."""
    layout = _LAYOUT.get()
    if layout is None or query.shape[2] != layout.runs[-1].stop:
        raise busy_recording()
    check_plain(module, attention_mask, dropout, others)
    layout.calls += 1
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key = key.repeat_interleave(groups, dim=1)
        value = value.repeat_interleave(groups, dim=1)
    out = value.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])
    for index, run in enumerate(layout.runs):
        mask = layout.mask(index, sliding_window, query.device)
        own = slice(run.start, run.stop)
        spans = [slice(*span) for span in run.before] + [own]
        attended = scaled_dot_product_attention(
            query[:, :, own],
            _rows(key, spans),
            _rows(value, spans),
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
        )
        out[:, own] = attended.transpose(1, 2)
    return out, None


def _rows(x: Tensor, spans: list[slice]) -> Tensor:
    parts = [x[:, :, span] for span in spans]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
