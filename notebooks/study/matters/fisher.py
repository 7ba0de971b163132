"""The Fisher form of the KL in the residual stream, and a gradient preconditioned by it.

For a displacement c v of all tokens at a layer, KL(steered‖unsteered) summed over a text is
½ c² vᵀFv to second order, with F = E[gᵀg] and g = Σ_t ∂log p(y)/∂h_t for tokens y that the model
draws. Under the constraint that the KL is fixed, the margin rises fastest along F⁻¹∂m/∂h. This is
the one stage that needs gradients of single texts, for which the library has no public call.
"""

import json
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import steer
from steer.algebra import parse_scope
from steer.engine._branches.scores import token_logprobs
from steer.engine._gradients import text_gradients
from steer.measure import neutral_text
from steer.model import exchange_batch

PROMPTS: list[str] = json.loads(Path(__file__).with_name("neutral.json").read_text("utf-8"))
DRAWS = 8


def fisher(
    model: steer.Model, layers: list[int], seed: int
) -> dict[int, Float[Tensor, "d_model d_model"]]:
    """Return F at some layers, per token of neutral text that nothing else uses.

    The tokens of a text have random signs and share one backward pass: cross terms have mean 0.
    """
    text = neutral_text(model, PROMPTS)
    batch = exchange_batch(model.chat, text.prompts, text.responses)
    draw = partial(_drawn, torch.Generator().manual_seed(seed))
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    scores = [draw] * DRAWS
    for texts in text_gradients(model.architecture, batch, layers, parse_scope("all"), scores):
        for one in texts:
            for layer, gradient in zip(layers, one.gradient, strict=True):
                found[layer].append(gradient.double().sum(dim=0).cpu())
    whole = {layer: torch.stack(rows) for layer, rows in found.items()}
    return {layer: g.T @ g / DRAWS / text.tokens for layer, g in whole.items()}


def preconditioned(
    gradient: Float[Tensor, " d_model"], form: Float[Tensor, "d_model d_model"], damping: float
) -> Float[Tensor, " d_model"]:
    """Return (F + λ tr F/d)⁻¹ g."""
    d = len(form)
    ridge = damping * form.trace() / d * torch.eye(d, dtype=form.dtype)
    solved: Tensor = torch.linalg.solve(form + ridge, gradient.double())
    return solved.float()


def _drawn(generator: torch.Generator, row: int, logits: Tensor) -> Tensor:
    p = logits.detach().float().softmax(dim=-1).cpu()
    tokens = torch.multinomial(p, 1, generator=generator)[:, 0]
    signs = torch.randint(0, 2, (len(p),), generator=generator) * 2 - 1
    total: Tensor = (token_logprobs(logits, tokens.tolist()) * signs).sum()
    return total
