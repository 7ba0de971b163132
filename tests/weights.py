"""Displacements of a model's weights for tests, and the same model with them merged."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from steer import Dense, LowRank, Vector, Weight
from steer.algebra import Term
from steer.algebra._term import dense

RANK = 3
_NOT_LINEAR = (".mlp.gate.",)  # a router's choice is not linear in its weight


def displacement(name: str, shape: torch.Size, seed: int, size: float = 0.1) -> Term | None:
    """A random term for one parameter that a hook can take, or None.

    Args:
        name: The parameter.
        shape: Its shape.
        seed: The term depends on this, the name and the shape.
        size: Size of its entries relative to 1/√width.
    """
    if len(shape) > 2 or any(part in name for part in _NOT_LINEAR):
        return None
    generator = torch.Generator().manual_seed(seed + sum(map(ord, name)))
    if len(shape) == 1:
        return Dense(size * torch.randn(shape, generator=generator))
    scale = size / (shape[1] * RANK) ** 0.5
    B = torch.randn(shape[0], RANK, generator=generator)
    A = torch.randn(RANK, shape[1], generator=generator)
    return LowRank(scale * B, A)


def everywhere(
    hf: nn.Module,
    seed: int = 0,
    size: float = 0.3,
    keep: Callable[[str], bool] = lambda name: True,
) -> Vector:
    """A displacement of every parameter of a model that a hook can take.

    Args:
        hf: The model.
        seed: The displacement depends on this and the parameters' names and shapes.
        size: Size of its entries relative to 1/√width.
        keep: Which parameters, by name.
    """
    found = {
        Weight(name): displacement(name, parameter.shape, seed, size)
        for name, parameter in hf.named_parameters()
        if keep(name)
    }
    return Vector({site: term for site, term in found.items() if term is not None})


def merged(hf: Any, *added: tuple[Vector, float]) -> Any:
    """A copy of a model with Σ c·Δ added to its weights, in float64.

    Args:
        hf: The model.
        *added: Vectors with their coefficients.
    """
    twin = copy.deepcopy(hf).double()
    parameters: Mapping[str, Tensor] = dict(twin.named_parameters())
    with torch.no_grad():
        for vector, coefficient in added:
            for site, term in vector.to(dtype=torch.float64).terms.items():
                if isinstance(site, Weight):
                    parameters[site.name].add_(coefficient * dense(term))
    return twin
