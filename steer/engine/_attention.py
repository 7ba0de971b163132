"""Attention of our own in place of a model's: chosen by its configs, for the time of a forward.

An attention function is registered in transformers' attention interface under a name of ours and
chosen by the text config. transformers builds no mask for a name it does not know, so the function
decides alone who attends to whom. What it cannot honour (soft caps, sinks, biases, masks made by
the model) it refuses.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from steer.errors import BusyModelError
from steer.network import Architecture

_HARMLESS = frozenset({"position_ids", "cache_position", "cu_seq_lens_q", "cu_seq_lens_k"})


class UnpackableError(Exception):
    """The model's attention needs something that ours does not have; the reason is its text."""


@contextmanager
def attention_replaced(
    architecture: Architecture,
    name: str,
    function: Callable[..., Any],
    busy: Callable[[], BusyModelError],
) -> Iterator[None]:
    """Let a model attend through a function of ours, and put everything back."""
    from transformers import AttentionInterface

    AttentionInterface.register(name, function)
    configs = _configs_of(architecture)
    before = [config._attn_implementation for config in configs]
    if name in before:
        raise busy()
    try:
        for config in configs:
            config._attn_implementation = {"": name}  # this config alone, not those inside it
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = {"": implementation}


def _configs_of(architecture: Architecture) -> list[Any]:
    """Return the configs that the text model reads, each once."""
    modules = [architecture.body, *(m for block in architecture.blocks for m in block.modules())]
    configs: list[Any] = [getattr(module, "config", None) for module in modules]
    return list({id(c): c for c in configs if hasattr(c, "_attn_implementation")}.values())


def causal_mask(
    depth: int, own: int, window: int | None, device: torch.device
) -> Bool[Tensor, "pos pos"] | None:
    """Return who attends to whom in consecutive tokens; None where it is plainly causal."""
    if window is not None and window >= depth + own:
        window = None
    if depth == 0 and window is None:
        return None
    queries = torch.arange(depth, depth + own, device=device)[:, None]
    keys = torch.arange(depth + own, device=device)[None, :]
    mask = keys <= queries
    return mask if window is None else mask & (keys > queries - window)


def check_plain(
    module: nn.Module, mask: Tensor | None, dropout: float, others: dict[str, Any]
) -> None:
    """Refuse whatever our attention does not compute."""
    if mask is not None:
        raise UnpackableError("it makes an attention mask of its own")
    if dropout or not getattr(module, "is_causal", True) or others.get("is_causal") is False:
        raise UnpackableError("its attention is not plainly causal")
    for name, value in others.items():
        if value is not None and value is not False and name not in _HARMLESS:
            if name in ("is_causal", "use_cache"):
                continue
            raise UnpackableError(f"its attention takes {name!r}")
