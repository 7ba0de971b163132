"""Preference under several settings, all computed together."""

from collections.abc import Mapping

import torch
from torch import Tensor

from steer.composition import Composition
from steer.engine.base import unsteered
from steer.errors import SelectionError
from steer.evaluate.preference import Preference, Reduce
from steer.model import Model
from steer.pairs import Pairs
from steer.sweep.likelihood import likelihoods
from steer.sweep.measures import reduced


def preferences(
    model: Model,
    composition: Composition,
    settings: Tensor,
    data: Mapping[str, Pairs],
    reduce: Reduce,
    max_tokens: int | None = None,
) -> list[dict[str, Preference]]:
    """Return the preference on each domain under each setting.

    Args:
        model: The model; it must not be steered.
        composition: What is steered with; its own coefficients are not used.
        settings: `[setting domain]`, dimensionless.
        data: Pairs by domain.
        reduce: Whether an answer's score is the mean or the sum of its tokens' log-probabilities.
        max_tokens: Tokens of one forward; by default what is measured to be fastest.

    Returns:
        For each setting, the preference by domain of the data.

    Raises:
        SteeringError: The model is being steered.
        SelectionError: A score is not finite.
    """
    unsteered(model.engine, "measuring preferences")
    pairs = [pair for part in data.values() for pair in part]
    prompts = [pair.prompt for pair in pairs]
    answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    found = likelihoods(
        model, composition, settings, prompts + prompts, answers, max_tokens=max_tokens
    )
    scores = reduced(found.logprobs, reduce)
    if not bool(torch.isfinite(scores).all()):
        raise SelectionError(
            "answers have scores that are not finite",
            found=f"{int((~torch.isfinite(scores)).sum())} of {scores.numel()}",
            expected="a finite log-probability of every token",
            do="try smaller coefficients, and look at the model's logits",
        )
    chosen, rejected = scores.chunk(2, dim=1)
    sizes = [len(part) for part in data.values()]
    return [
        {
            name: Preference(c, r, reduce)
            for name, c, r in zip(data, up.split(sizes), down.split(sizes), strict=True)
        }
        for up, down in zip(chosen, rejected, strict=True)
    ]
