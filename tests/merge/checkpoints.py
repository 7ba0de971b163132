"""Checkpoints on disk, and vectors to merge into them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from steer import Vector
from steer.algebra import Dense, LowRank, Provenance, Weight
from steer.network import Checkpoint
from tests.tiny import tiny_model, tiny_tokenizer

BF16 = torch.bfloat16


def saved(folder: Path, family: str = "llama", *, noise: float = 0.0, **options: Any) -> Path:
    """A checkpoint in shards with its tokenizer; with noise, one aligned with the plain one."""
    model = tiny_model(family, dtype=BF16, **options)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            p.add_((torch.randn(p.shape, generator=generator) * noise).to(p.dtype))
    model.save_pretrained(folder, max_shard_size="40KB")
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tensors(folder: Path) -> dict[str, Tensor]:
    checkpoint = Checkpoint.open(folder)
    return {name: checkpoint.tensor(name).clone() for name in checkpoint.names}


def weight_vector(folder: Path, coefficient: float = 0.05, seed: int = 3) -> Vector:
    """A low-rank term for each matrix of the model and a dense one for all else."""
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(folder)
    terms: dict[Any, Any] = {}
    for name, p in model.named_parameters():
        if p.ndim == 2:
            B = torch.randn(p.shape[0], 2, generator=generator) * coefficient
            A = torch.randn(2, p.shape[1], generator=generator)
            terms[Weight(name)] = LowRank(B, A)
        else:
            terms[Weight(name)] = Dense(torch.randn(p.shape, generator=generator) * coefficient)
    return Vector(terms, Provenance(method="alignment_vector", domain="medical"))
