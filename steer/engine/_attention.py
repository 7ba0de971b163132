"""Attention over packed rows: run by run, within one forward or on the rows of an earlier one.

An attention function is registered in transformers' attention interface under its own name and
selected in the text config for the time of a forward. transformers builds no mask for a name it
does not know, so the function alone decides which tokens attend to which. It refuses what it does
not compute: soft caps, sinks, biases and masks that the model makes itself.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from steer.engine._layout import Run, Spans
from steer.errors import BusyModelError
from steer.network import Architecture

ATTENTION = "steer_packed"
_HARMLESS = frozenset(
    {"position_ids", "cache_position", "cu_seq_lens_q", "cu_seq_lens_k", "is_causal", "use_cache"}
)
Mask = Bool[Tensor, "pos pos"] | None
Heads = Float[Tensor, "batch head pos width"]
Memory = dict[nn.Module, tuple[Heads, Heads]]


class UnpackableError(Exception):
    """The model's attention needs something that ours does not have; the reason is its text."""


@dataclass(eq=False, slots=True)
class PackedForward:
    """One forward over packed rows, and the masks of its runs, made once for all layers."""

    runs: Sequence[Run]
    memory: Memory = field(default_factory=dict)  # keys and values of shared rows, by module
    keep: bool = False  # whether this forward fills the memory, rather than reads it
    calls: int = 0  # attention calls so far
    _masks: dict[tuple[int, int | None, torch.device], Mask] = field(default_factory=dict)

    def mask(self, index: int, window: int | None, device: torch.device) -> Mask:
        """Return which tokens a run attends to; None where it is plainly causal."""
        key = (index, window, device)
        if key not in self._masks:
            run = self.runs[index]
            self._masks[key] = _causal_mask(run.depth, run.stop - run.start, window, device)
        return self._masks[key]


_FORWARD: ContextVar[PackedForward | None] = ContextVar("steer_packed", default=None)


@contextmanager
def attending(architecture: Architecture, forward: PackedForward, layers: int) -> Iterator[None]:
    """Run a forward of `layers` attention layers with our attention, and restore the model's.

    Raises:
        BusyModelError: The model is running with it already.
        UnpackableError: The model's attention did not go through it.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, _attention)
    configs = _configs_of(architecture)
    before = [config._attn_implementation for config in configs]
    if ATTENTION in before:
        raise busy()
    token = _FORWARD.set(forward)
    try:
        for config in configs:
            config._attn_implementation = {"": ATTENTION}  # this config alone, not its children
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = {"": implementation}
        _FORWARD.reset(token)
    if forward.calls < layers:
        raise UnpackableError("its attention does not go through transformers' interface")


def busy() -> BusyModelError:
    """Return the error of a call of a model while its blocks are being read."""
    return BusyModelError(
        "this model is recording activations or scoring settings",
        found="a second call during one of these forwards, or from another thread",
        expected="one call at a time",
        do="wait until it has returned, or use one copy of the model per thread",
    )


def _configs_of(architecture: Architecture) -> list[Any]:
    """Return the configs that the text model reads, each once."""
    modules = [architecture.body, *(m for block in architecture.blocks for m in block.modules())]
    configs: list[Any] = [getattr(module, "config", None) for module in modules]
    return list({id(c): c for c in configs if hasattr(c, "_attn_implementation")}.values())


def _attention(
    module: nn.Module,
    query: Heads,
    key: Heads,
    value: Heads,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Float[Tensor, "batch pos head width"], None]:
    """Return the attention of each run; the arguments are those of transformers' functions."""
    forward = _FORWARD.get()
    if forward is None or query.shape[2] != forward.runs[-1].stop:
        raise busy()
    _check_plain(module, attention_mask, dropout, others)
    forward.calls += 1
    if forward.keep:
        forward.memory[module] = key, value
    shared = None if forward.keep else forward.memory.get(module)
    if shared is None:
        key, value = (_for_heads(x, query.shape[1]) for x in (key, value))
    out = value.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])
    for index, run in enumerate(forward.runs):
        if run.shared and shared is None:
            raise UnpackableError("one of its attention modules runs for some rows only")
        mask = forward.mask(index, sliding_window, query.device)
        own = slice(run.start, run.stop)
        attended = scaled_dot_product_attention(
            query[:, :, own],
            _seen(key, None if shared is None else shared[0], run, query.shape[1]),
            _seen(value, None if shared is None else shared[1], run, query.shape[1]),
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
        )
        out[:, own] = attended.transpose(1, 2)
    return out, None


def _seen(x: Heads, shared: Heads | None, run: Run, heads: int) -> Heads:
    """Return the keys, or values, of all tokens up to the end of a run, for every head."""
    parts = _rows(x, (*run.before, (run.start, run.stop)))
    if shared is not None:
        kept = _rows(shared, run.shared)
        parts = [part.expand(x.shape[0], -1, -1, -1) for part in kept] + parts
    return _for_heads(parts[0] if len(parts) == 1 else torch.cat(parts, dim=2), heads)


def _for_heads(x: Heads, heads: int) -> Heads:
    """Return keys or values for every query head, where several share one."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def _rows(x: Heads, spans: Spans) -> list[Heads]:
    return [x[:, :, start:stop] for start, stop in spans]


def _causal_mask(depth: int, own: int, window: int | None, device: torch.device) -> Mask:
    """Return which tokens `own` tokens after `depth` others see; None where plainly causal."""
    if window is not None and window >= depth + own:
        window = None
    if depth == 0 and window is None:
        return None
    queries = torch.arange(depth, depth + own, device=device)[:, None]
    keys = torch.arange(depth + own, device=device)[None, :]
    mask = keys <= queries
    return mask if window is None else mask & (keys > queries - window)


def _check_plain(
    module: nn.Module, mask: Tensor | None, dropout: float, others: dict[str, Any]
) -> None:
    """Refuse arguments that would change the result and that our attention does not compute."""
    if mask is not None:
        raise UnpackableError("it makes an attention mask of its own")
    if dropout or not getattr(module, "is_causal", True) or others.get("is_causal") is False:
        raise UnpackableError("its attention is not plainly causal")
    for name, value in others.items():
        if value is not None and value is not False and name not in _HARMLESS:
            raise UnpackableError(f"its attention takes {name!r}")
