"""KL and perplexity: how far steering moves a model on text that it should leave alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import as_list
from steer.engine import unsteered
from steer.errors import SelectionError
from steer.measure._estimate import Estimate, mapped, ratio_of, within
from steer.measure._judge.protocol import prompt_text
from steer.model import Model, check_model
from steer.network import as_prompts
from steer.pairs import Prompt
from steer.show import Card, Shown
from steer.show._rows import table_of

NEUTRAL_PROMPTS: tuple[str, ...] = (
    "What is a good way to spend a rainy afternoon?",
    "Describe the colours of a sunset.",
    "How do I boil an egg?",
    "Tell me a short story about a lighthouse.",
    "What makes a good cup of tea?",
    "Name three things that float on water.",
    "How is bread made?",
    "Why do leaves change colour in autumn?",
    "What would you pack for a day at the beach?",
    "Explain how a bicycle stays upright.",
    "Write two sentences about a quiet street.",
    "What sounds can be heard in a forest?",
    "How do birds find their way?",
    "Suggest a name for a small brown dog.",
    "What is the difference between a lake and a pond?",
    "Describe your favourite kind of weather.",
)

_MOST = 700.0  # the greatest x of which e^x is a float


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class NeutralText(Shown):
    """Neutral prompts, responses, and the unsteered model's logits there.

    Args:
        prompts: The prompts.
        responses: The unsteered model's own continuations, or texts that were given.
        logits: For each response `[pos vocab]`, unsteered.
    """

    prompts: tuple[Prompt, ...]
    responses: tuple[str, ...]
    logits: tuple[Float[Tensor, "pos vocab"], ...]

    @property
    def tokens(self) -> int:
        """Response tokens."""
        return sum(len(row) for row in self.logits)

    def _card(self) -> Card:
        texts = zip(self.prompts, self.responses, self.logits, strict=True)
        rows = [
            {"prompt": prompt_text(prompt), "response": response, "tokens": len(logits)}
            for prompt, response, logits in texts
        ]
        title = f"Neutral text: {len(rows)} responses of {self.tokens} tokens"
        return Card(title, (), (table_of(rows),))


def neutral_text(
    model: Model,
    prompts: Sequence[Prompt] = NEUTRAL_PROMPTS,
    *,
    responses: Sequence[str] | None = None,
    max_new_tokens: int = 24,
) -> NeutralText:
    """Return neutral text: the unsteered model's own greedy continuations, or responses given.

    Args:
        model: The model; it must not be steered.
        prompts: Prompts of no particular domain; by default `NEUTRAL_PROMPTS`.
        responses: One for each prompt, in place of the model's own continuations.
        max_new_tokens: Maximum length of a continuation, in tokens.

    Returns:
        Prompts, responses and unsteered logits; empty continuations are left out.

    Raises:
        SelectionError: Every continuation is empty.
        SteeringError: The model is being steered.
        TextError: Prompts and responses given differ in number, or a response has no token.
    """
    check_model(model)
    unsteered(model.engine, "neutral_text")
    prompts = as_prompts(prompts)
    if responses is not None:
        responses = as_list("responses", responses)
        logits = model.logits(prompts, responses)
        return NeutralText(tuple(prompts), tuple(responses), tuple(logits))
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


def kl_divergence(model: Model, text: NeutralText) -> Estimate:
    """Return KL(steered‖unsteered) = Σ_v p_s (log p_s − log p_u), averaged over response tokens.

    Args:
        model: The model, inside `with model.steered(...)`.
        text: Neutral text of the same model.

    Returns:
        Nats per response token, at least 0 up to rounding, with an interval over texts, not over
        their tokens; each item is the mean of one text.
    """
    check_model(model)
    tokens = [float(len(row)) for row in text.logits]
    name = "KL(steered‖unsteered) in nats per token"
    return within(ratio_of(name, _divergences(model, text), tokens), 0.0, math.inf)


def perplexity(model: Model, prompts: Sequence[Prompt], responses: Sequence[str]) -> Estimate:
    """Return exp(−Σ log p(token) / tokens) of a model, steered or not, on responses.

    To measure how fluently a steered model writes, let the unsteered model read its answers:
    `perplexity(model, prompts, answers)`.

    Args:
        model: The model; inside `with model.steered(...)` it is measured steered.
        prompts: One prompt per response.
        responses: The texts, for instance those of `neutral_text`.

    Returns:
        The perplexity, at least 1, with the interval of the mean over texts; each item is the
        perplexity of one text.

    Raises:
        SelectionError: There are no texts, or a log-probability is not finite.
        TextError: Prompts and responses differ in number, or a response has no token.
    """
    check_model(model)
    prompts, responses = as_list("prompts", prompts), as_list("responses", responses)
    scored = model.logprobs(prompts, responses)
    nats = [-float(row.double().sum()) for row in scored]
    found = within(ratio_of("nats per token", nats, [len(row) for row in scored]), 0.0, math.inf)
    return mapped(found, "perplexity", exp)


def divergence(log_s: Float[Tensor, "pos vocab"], log_u: Float[Tensor, "pos vocab"]) -> float:
    """Return Σ p_s (log p_s − log p_u) in nats over positions and tokens, with 0 · log 0 = 0."""
    p = log_s.exp()
    return float(torch.where(p == 0, 0.0, p * (log_s - log_u)).sum().double())


def exp(nats: float) -> float:
    """Return e^x; infinite where a float cannot hold it."""
    return math.exp(nats) if nats < _MOST or math.isnan(nats) else math.inf


def _divergences(model: Model, text: NeutralText) -> list[float]:
    """Return KL(steered‖unsteered) of each text, in nats, summed over its tokens."""
    found = []
    for now, before in zip(model.logits(text.prompts, text.responses), text.logits, strict=True):
        if now.shape != before.shape:
            raise SelectionError(
                "this neutral text was prepared with another model",
                found=f"logits {tuple(before.shape)} [pos, vocab], and {tuple(now.shape)} of this "
                "model",
                expected="the same tokens of the same vocabulary",
                do="prepare it with this model, unsteered: neutral_text(model, …)",
            )
        both = (torch.log_softmax(logits.float(), dim=-1) for logits in (now, before))
        found.append(divergence(*both))
    return found
