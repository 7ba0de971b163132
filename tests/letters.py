"""Pairs whose chosen answers are of one letter and rejected ones of another, for tiny models."""

import torch
from torch import Tensor

import steer


def letter_pairs(
    count: int, good: str = "b", bad: str = "c", domain: str = "letters"
) -> steer.Pairs:
    """Pairs that a single direction at the last layer can prefer: see `towards`."""
    return steer.Pairs.of(
        steer.Pair(
            f"question {k}", f"{good} " * (1 + k % 3) + good, f"{bad} " * (1 + k % 3) + bad, domain
        )
        for k in range(count)
    )


def towards(lm: steer.Model, token: str, away: str) -> Tensor:
    """The direction at the last layer that raises one token's logit over another's."""
    unembedding = lm.architecture.unembedding.weight.detach()
    up, down = (lm.tokenizer(t, add_special_tokens=False)["input_ids"][-1] for t in (token, away))
    return unembedding[up] - unembedding[down]


def planted(lm: steer.Model, token: str = " b", away: str = " c") -> steer.Vector:
    """A vector at the last layer that prefers one letter to another."""
    v = towards(lm, token, away)
    return steer.Vector.of({3: 20 * v / v.norm()})


def noise_and_planted(lm: steer.Model) -> dict[str, steer.Vector]:
    """A vector of noise at every layer, and the planted one."""
    generator = torch.Generator().manual_seed(0)
    noise = {k: torch.randn(lm.d_model, generator=generator) for k in range(lm.n_layers)}
    return {"noise": steer.Vector.of(noise), "planted": planted(lm)}
