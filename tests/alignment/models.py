"""Pairs of tiny models that differ by a known amount, in memory and on disk."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from tests.tiny import tiny_model, tiny_tokenizer


def pair(family: str, **options: Any) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A model, and a sibling in which every parameter but each third is moved."""
    base, aligned = tiny_model(family, layers=2, **options), tiny_model(family, layers=2, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for number, parameter in enumerate(aligned.parameters()):
            if number % 3 != 1:
                step = 0.05 * torch.randn(parameter.shape, generator=generator)
                parameter.add_(step.to(parameter.dtype))
    return base, aligned


def saved(
    model: PreTrainedModel, folder: Path, *, shard: str = "20KB", tokenizer: bool = True
) -> Path:
    """The folder, after the model was written there in several shards."""
    model.save_pretrained(folder, max_shard_size=shard)
    if tokenizer:
        tiny_tokenizer().save_pretrained(folder)
    return folder


def expected(base: torch.nn.Module, aligned: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The difference of every parameter in float64, where there is one."""
    right = dict(aligned.named_parameters())
    found = {
        n: right[n].detach().double() - p.detach().double() for n, p in base.named_parameters()
    }
    return {name: value for name, value in found.items() if bool(value.any())}
