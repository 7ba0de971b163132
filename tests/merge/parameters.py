"""The bytes of a model's parameters, and terms to merge into them."""

import torch
from torch import Tensor, nn

from steer.algebra import Dense, LowRank, Term

Deltas = list[tuple[str, Term, float]]
LAMBDAS = (0.3, -1.0, 0.5, 1.0, 0.7, -0.2, 0.0, 1e-3, 0.9, 0.31)


def bits(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter's bytes."""
    return {
        name: p.detach().clone().contiguous().reshape(-1).view(torch.uint8)
        for name, p in model.named_parameters()
    }


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def deltas_for(model: nn.Module, coefficient: float, *, seed: int = 0) -> Deltas:
    """A low-rank term for every matrix and a dense one for all else."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.05

    found: Deltas = []
    for name, p in model.named_parameters():
        term: Term = Dense(noise(*p.shape))
        if p.ndim == 2:
            term = LowRank(noise(p.shape[0], 3), noise(3, p.shape[1]))
        found.append((name, term, coefficient))
    return found
