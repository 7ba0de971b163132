"""Run a model on a few tokens and leave it, and the random state, as they were."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

ROWS, TOKENS = 2, 4


def probe_ids(config: Any, embedding: nn.Module, vocab: int) -> Int[Tensor, "batch pos"]:
    """Return token ids that are valid and, as far as possible, not special and all different.

    Args:
        config: The model's config.
        embedding: The token embedding, on whose device the ids are put.
        vocab: Number of logits.
    """
    size = min(vocab, getattr(embedding, "num_embeddings", vocab))
    special = _special_ids(config)
    count, start = ROWS * TOKENS, size // 3
    usual = (i for i in chain(range(start, size), range(start)) if i not in special)
    ids = (list(islice(usual, count)) or [0]) * count
    device = next(embedding.parameters()).device
    if device.type == "meta":  # offloaded: the model's own hooks move the ids
        device = torch.device("cpu")
    return torch.tensor(ids[:count], device=device).view(ROWS, TOKENS)


def _special_ids(config: Any) -> set[int]:
    """Return every token id that the config, or a config inside it, gives a name."""
    found: set[int] = set()
    stack: list[Any] = [config.to_dict()]
    while stack:
        for name, value in stack.pop().items():
            if isinstance(value, dict):
                stack.append(value)
            elif str(name).endswith(("_token_id", "_token_index")):
                values = value if isinstance(value, list) else [value]
                found |= {i for i in values if isinstance(i, int)}
    return found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off for a moment: the flag of every module is put back as it was.

    The flags are set directly: `model.train()` would also switch on parts that were frozen.
    """
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def same_random_state(model: nn.Module) -> Iterator[None]:
    """Put the global random state of the CPU and of the model's GPUs back as it was."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices=devices):
        yield
