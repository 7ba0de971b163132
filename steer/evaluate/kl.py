"""How far steering moves a model on text that should not be affected."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer.errors import SelectionError
from steer.evaluate.neutral import NEUTRAL_PROMPTS
from steer.model import Model
from steer.pairs import Prompt


@dataclass(frozen=True, eq=False, slots=True)
class NeutralText:
    """Neutral prompts, a model's own continuations, and its logits there.

    Args:
        prompts: The prompts.
        responses: The unsteered model's continuations.
        logits: For each response `[pos vocab]`, unsteered.
    """

    prompts: tuple[Prompt, ...]
    responses: tuple[str, ...]
    logits: tuple[Float[Tensor, "pos vocab"], ...]

    @property
    def tokens(self) -> int:
        """Response tokens."""
        return sum(len(row) for row in self.logits)


def neutral_text(
    model: Model, prompts: Sequence[Prompt] = NEUTRAL_PROMPTS, *, max_new_tokens: int = 24
) -> NeutralText:
    """Return the unsteered model's own greedy continuations of neutral prompts.

    Args:
        model: The model; it must not be steered.
        prompts: Prompts of no domain; by default those that ship with the library.
        max_new_tokens: Length of a continuation, in tokens.

    Returns:
        Prompts, continuations and unsteered logits; empty continuations are left out.

    Raises:
        SelectionError: Every continuation is empty.
    """
    answers = model.generate(list(prompts), max_new_tokens=max_new_tokens)
    kept = [(p, a) for p, a in zip(prompts, answers, strict=True) if a.strip()]
    if not kept:
        raise SelectionError(
            "the model continues no neutral prompt",
            found=f"{len(answers)} empty continuations",
            expected="at least one non-empty",
            do="pass prompts that this model answers: neutral=[...]",
        )
    asked, responses = zip(*kept, strict=True)
    return NeutralText(asked, responses, tuple(model.logits(asked, responses)))


def kl_per_token(model: Model, text: NeutralText) -> float:
    """Return KL(steered‖unsteered) = Σ_v p_s (log p_s − log p_u), the mean over response tokens.

    Args:
        model: The model, inside `with model.steered(...)`.
        text: Continuations of the same model, unsteered.

    Returns:
        Nats per response token, at least 0 up to rounding.
    """
    total = 0.0
    steered = model.logits(text.prompts, text.responses)
    for now, before in zip(steered, text.logits, strict=True):
        log_s = torch.log_softmax(now.float(), dim=-1)
        log_u = torch.log_softmax(before.float(), dim=-1)
        total += float((log_s.exp() * (log_s - log_u)).sum().double())
    return total / text.tokens
