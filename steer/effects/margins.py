"""Preference under several settings, all computed together."""

from collections.abc import Mapping

import torch
from torch import Tensor

from steer.composition import Composition
from steer.errors import SelectionError
from steer.evaluate.preference import Preference, Reduce
from steer.model import Model
from steer.pairs import Pairs
from steer.sweep.likelihood import likelihoods


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
        model: The model.
        composition: What is steered with.
        settings: `[setting domain]`, dimensionless.
        data: Pairs by domain.
        reduce: Whether an answer's score is the mean or the sum of its tokens' log-probabilities.
        max_tokens: Tokens of one forward; by default what is measured to be fastest.

    Returns:
        For each setting, the preference by domain of the data.
    """
    pairs = [pair for part in data.values() for pair in part]
    prompts = [pair.prompt for pair in pairs]
    answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    found = likelihoods(
        model, composition, settings, prompts + prompts, answers, max_tokens=max_tokens
    )
    scores = [getattr(row.double(), reduce)(dim=1) for row in found.logprobs]
    chosen, rejected = torch.stack(scores, dim=1).chunk(2, dim=1)
    sizes = [len(part) for part in data.values()]
    return [
        {
            name: Preference(c, r, reduce)
            for name, c, r in zip(data, up.split(sizes), down.split(sizes), strict=True)
        }
        for up, down in zip(chosen, rejected, strict=True)
    ]


def by_domain(data: Pairs | Mapping[str, Pairs]) -> dict[str, Pairs]:
    """Return the pairs of each domain, under `all` where there is none.

    Args:
        data: Pairs, or pairs by domain.

    Raises:
        SelectionError: A domain has no pairs, or there is none.
    """
    if isinstance(data, Pairs):
        found = {name: data.of_domain(name) for name in data.domains} or {"all": data}
    else:
        found = dict(data)
    empty = [name for name, part in found.items() if not len(part)]
    if not found or empty:
        raise SelectionError(
            "there is nothing to measure on",
            found=f"domains {list(found)}, without pairs: {empty}",
            expected="at least one pair of each domain",
            do="check the split or the domain's name",
        )
    return found
