"""Directions that read a domain off the heads of attention, and vectors that act where they read.

A residual vector acts on every prompt alike. The same direction v as a weight vector v aᵀ at the
output projection of attention adds (a·x) v, with x the output of the heads: if a·x is 1 in one
domain and 0 in the others, the vector acts in its domain alone, with one coefficient for all
prompts. a is a ridge regression without intercept, of the domain on the tokens of training texts.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os.path import commonprefix
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import steer
from notebooks.study.levels.data import DOMAINS, LEVELS, Domain
from steer import LowRank, Vector, Weight
from steer.network import encode_exchange

QUESTIONS = 20  # of each domain, with their answers at all levels
RIDGE = 1e-2  # of the mean square of the inputs
_Inputs = Mapping[int, list[Float[Tensor, "pos d_in"]]]


def readers(
    model: steer.Model, known: Mapping[str, Domain], layers: Sequence[int]
) -> dict[str, Vector]:
    """Return for each domain the directions that read it, one for each layer.

    The target is 1 from the question on in texts of the domain, 0 in those of the others and in
    what comes before the question.
    """
    texts = [
        (number, encode_exchange(model.chat, asked, known[name].train.answers[level][k]).ids)
        for number, name in enumerate(DOMAINS)
        for k, asked in enumerate(known[name].train.prompts[:QUESTIONS])
        for level in LEVELS
    ]
    start = len(commonprefix([ids for _, ids in texts]))
    targets = [torch.zeros(len(ids), len(DOMAINS)) for _, ids in texts]
    inputs: _Inputs = {layer: [] for layer in layers}
    with torch.inference_mode(), _recorded(model, inputs):
        for (number, ids), target in zip(texts, targets, strict=True):
            model.hf_model.model(torch.tensor([ids]))
            target[start:, number] = 1.0
    y = torch.cat(targets).double()
    found: dict[str, dict[int, Tensor]] = {name: {} for name in DOMAINS}
    for layer, parts in inputs.items():
        x = torch.cat(parts).double()
        gram = x.T @ x
        gram.diagonal().add_(RIDGE * gram.diagonal().mean())
        for name, direction in zip(DOMAINS, torch.linalg.solve(gram, x.T @ y).T, strict=True):
            found[name][layer] = direction.float()
    return {name: Vector.of(directions) for name, directions in found.items()}


def reading(vector: Vector, reader: Vector, times: float) -> Vector:
    """Return the weight vector that displaces along a vector as far as a reader says.

    Args:
        vector: A residual vector.
        reader: What reads the domain, at the same layers.
        times: Makes up for readers that do not reach 1.
    """
    return Vector(
        {
            Weight(f"model.layers.{layer}.self_attn.o_proj.weight"): LowRank(
                times * vector.direction(layer)[:, None], reader.direction(layer)[None]
            )
            for layer in vector.layers
        }
    )


@contextmanager
def _recorded(model: steer.Model, inputs: _Inputs) -> Iterator[None]:
    """Append what reaches the output projections of attention in each forward."""

    def hook(layer: int) -> Any:
        return lambda module, args: inputs[layer].append(args[0][0].clone())

    handles = [
        model.hf_model.get_submodule(
            f"model.layers.{layer}.self_attn.o_proj"
        ).register_forward_pre_hook(hook(layer))
        for layer in inputs
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
