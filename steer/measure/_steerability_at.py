"""How evenly preference margins follow the coefficient of one domain."""

from collections.abc import Sequence

import torch

from steer._check import as_list
from steer.algebra import as_composition
from steer.algebra._coefficients import coefficient_rows
from steer.algebra._composition import Steerable
from steer.engine import unsteered
from steer.errors import SelectionError
from steer.measure._data import pairs_by_domain
from steer.measure._reduce import Reduce
from steer.measure._scores import preferences
from steer.measure._steerability import Steerability
from steer.model import Model, check_model
from steer.pairs import Pairs, as_pairs


def steerability(
    model: Model,
    what: Steerable,
    pairs: Pairs,
    coefficients: Sequence[float] = (-1.0, -0.5, 0.0, 0.5, 1.0),
    *,
    domain: str | None = None,
    reduce: Reduce = "mean",
    max_tokens: int | None = None,
    progress: bool = True,
) -> Steerability:
    """Return how the preference margin of each pair follows a coefficient.

    The slope of margin(c) = score(chosen) − score(rejected) against c, by least squares on each
    pair; the share of pairs with a negative slope; and the rank correlation.

    Args:
        model: The model; it must not be steered.
        what: A vector or a composition.
        pairs: The pairs, at least one.
        coefficients: At least two different ones, dimensionless.
        domain: The domain whose coefficient is turned, where there are several; the others are 0.
        reduce: Score answers by the mean or the sum of their tokens' log-probabilities.
        max_tokens: Tokens of one forward; by default what is measured to be fastest.
        progress: Whether to show a progress bar.

    Returns:
        The margins of every pair under every coefficient, and what follows from them.

    Raises:
        SteeringError: The model is being steered.
        SelectionError: No pairs, fewer than two coefficients, or no domain named among several.
        CompositionError: An unknown domain, or a coefficient out of the operator's range.

    Reference:
        arXiv 2407.12404.
    """
    check_model(model)
    unsteered(model.engine, "steerability")
    composition = as_composition(what)
    if domain is None and len(composition.domains) > 1:
        raise SelectionError(
            "it is not said which coefficient to turn",
            found=f"domains {list(composition.domains)}",
            expected="one of them",
            do=f"domain={composition.domains[0]!r}",
        )
    name = domain or composition.domains[0]
    coefficients, score = tuple(as_list("coefficients", coefficients)), "margin in nats"
    whole = pairs_by_domain({"all": as_pairs(pairs)})
    margins = torch.empty(0, 0)
    if coefficients:
        rows, _ = coefficient_rows([{name: c} for c in coefficients], composition.domains)
        options = {"progress": progress}
        found = preferences(model, composition, rows, whole, reduce, max_tokens, **options)
        margins = torch.stack([at["all"].margins for at in found])
    return Steerability(coefficients, margins, f"{score} ({reduce} log-probability)")
