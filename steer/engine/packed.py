"""Recording forwards over packs: one dense row through the linear layers, attention run by run.

One attention function is registered in transformers' attention interface under our own name and
chosen by the text config for the duration of a forward. transformers builds no mask for a name it
does not know, so the function decides alone who attends to whom. What it cannot honour (soft
caps, sinks, biases, masks made by the model) it refuses; `steer.engine.packing` then finds
another way.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from steer.architecture import Architecture
from steer.engine.reading import (
    Averager,
    Means,
    Place,
    busy_recording,
    device_of,
    run_blocks,
)
from steer.engine.tree import Run, pack

ATTENTION = "steer_packed"
_HARMLESS = frozenset({"position_ids", "cache_position", "cu_seq_lens_q", "cu_seq_lens_k"})


class UnpackableError(Exception):
    """The model's attention needs something that packs do not have; the reason is its text."""


class _Layout:
    """The runs of the pack that is being computed, and their masks, made once for all layers."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.calls = 0
        self._masks: dict[tuple[int, int | None, torch.device], Bool[Tensor, "pos pos"]] = {}

    def mask(
        self, index: int, window: int | None, device: torch.device
    ) -> Bool[Tensor, "pos pos"] | None:
        """Return who attends to whom in a run; None where it is plainly causal.

        Args:
            index: The run.
            window: How many tokens, itself included, a token may see; None for all.
            device: Where the layer is.
        """
        run = self.runs[index]
        depth, own = run.depth, run.stop - run.start
        if window is not None and window >= depth + own:
            window = None
        if depth == 0 and window is None:
            return None
        key = (index, window, device)
        if key not in self._masks:
            queries = torch.arange(depth, depth + own, device=device)[:, None]
            keys = torch.arange(depth + own, device=device)[None, :]
            mask = keys <= queries
            self._masks[key] = mask if window is None else mask & (keys > queries - window)
        return self._masks[key]


_LAYOUT: ContextVar[_Layout | None] = ContextVar("steer_packed_layout", default=None)


def read_packed(
    architecture: Architecture,
    sequences: Sequence[Sequence[int]],
    places: Sequence[Place],
    layers: Sequence[int],
) -> Means:
    """Average the residual stream at some places in one forward over a pack.

    Args:
        architecture: The model's parts.
        sequences: Token ids of each sequence.
        places: Where to average.
        layers: Layers (block outputs, 0-based), ascending.

    Returns:
        The averages, one row per place.

    Raises:
        UnpackableError: The model's attention cannot be packed.
    """
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
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, _attention)
    configs = configs_of(architecture)
    before = [config._attn_implementation for config in configs]
    if ATTENTION in before:
        raise busy_recording()
    token = _LAYOUT.set(layout)
    try:
        for config in configs:
            config._attn_implementation = {"": ATTENTION}  # this config alone, not those inside it
        yield layout
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = {"": implementation}
        _LAYOUT.reset(token)


def configs_of(architecture: Architecture) -> list[Any]:
    """Return the configs that the text model reads, each once."""
    modules = [architecture.body, *(m for block in architecture.blocks for m in block.modules())]
    configs: list[Any] = [getattr(module, "config", None) for module in modules]
    return list({id(c): c for c in configs if hasattr(c, "_attn_implementation")}.values())


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
    """Attend run by run, as transformers calls attention functions.

    Args:
        module: The attention module.
        query: `[batch, heads, pos, width of a head]`.
        key: The same with the heads of keys and values.
        value: Likewise.
        attention_mask: Always None, since no mask is made for our name.
        dropout: Always 0 in evaluation mode.
        scaling: Factor of the scores.
        sliding_window: How many tokens, itself included, a token may see.
        **others: What else the model hands on; what would change the result is refused.

    Returns:
        `[batch, pos, heads, width of a head]`, and no weights.
    """
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


def check_plain(
    module: torch.nn.Module, mask: Tensor | None, dropout: float, others: dict[str, Any]
) -> None:
    """Refuse whatever this attention does not compute."""
    if mask is not None:
        raise UnpackableError("it makes an attention mask of its own")
    if dropout or not getattr(module, "is_causal", True) or others.get("is_causal") is False:
        raise UnpackableError("its attention is not plainly causal")
    for name, value in others.items():
        if value is not None and value is not False and name not in _HARMLESS:
            if name in ("is_causal", "use_cache"):
                continue
            raise UnpackableError(f"its attention takes {name!r}")
