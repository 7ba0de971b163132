"""Preference under several settings, all computed together."""

from collections.abc import Mapping

from torch import Tensor
from tqdm.auto import tqdm

from steer.composition import Composition
from steer.engine.base import unsteered
from steer.evaluate.alike import warn_of_alike
from steer.evaluate.preference import Preference
from steer.evaluate.reduce import Reduce, check_reduce, reduced
from steer.measure.likelihood import likelihoods
from steer.model import Model, check_model
from steer.pairs import Pairs


def preferences(
    model: Model,
    composition: Composition,
    settings: Tensor,
    data: Mapping[str, Pairs],
    reduce: Reduce,
    max_tokens: int | None = None,
    *,
    finite: bool = True,
    progress: bool = False,
) -> list[dict[str, Preference]]:
    """Return the preference on each domain under each setting.

    Args:
        model: The model; it must not be steered.
        composition: What is steered with; its own coefficients are not used.
        settings: `[setting domain]`, dimensionless.
        data: Pairs by domain.
        reduce: Whether an answer's score is the mean or the sum of its tokens' log-probabilities.
        max_tokens: Tokens of one forward; by default what is measured to be fastest.
        finite: Whether scores that are not finite are refused.
        progress: Whether to show a progress bar.

    Returns:
        For each setting, the preference by domain of the data.

    Raises:
        SteeringError: The model is being steered.
        SelectionError: A score is not finite, or `reduce` is neither mean nor sum.
    """
    check_model(model)
    unsteered(model.engine, "measuring preferences")
    check_reduce(reduce)
    pairs = [pair for part in data.values() for pair in part]
    prompts = [pair.prompt for pair in pairs]
    answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    total = len(answers) * len(settings)
    with tqdm(total=total, desc="likelihoods", disable=None if progress else True) as bar:
        found = likelihoods(
            model,
            composition,
            settings,
            prompts + prompts,
            answers,
            max_tokens=max_tokens,
            done=bar.update,
        )
    chosen, rejected = reduced(found.logprobs, reduce, finite=finite).chunk(2, dim=1)
    tied = (chosen == rejected).all(dim=0).tolist()
    warn_of_alike(model, [pair for pair, same in zip(pairs, tied, strict=True) if same])
    sizes = [len(part) for part in data.values()]
    return [
        {
            name: Preference(c, r, reduce)
            for name, c, r in zip(data, up.split(sizes), down.split(sizes), strict=True)
        }
        for up, down in zip(chosen, rejected, strict=True)
    ]
