"""What a choice is made from: every vector at every layer, tried at every coefficient."""

import math
from collections.abc import Mapping, Sequence

import torch

from steer.choice import Trial
from steer.composition import Composition, number
from steer.effects.margins import preferences
from steer.errors import SelectionError
from steer.evaluate.kl import NeutralText
from steer.evaluate.preference import Preference, Reduce
from steer.model import Model
from steer.pairs import Pairs
from steer.search.effects import SideEffects
from steer.vector import Vector

Candidates = Vector | Sequence[Vector] | Mapping[str, Vector]


def candidates_of(
    vectors: Candidates, layers: Sequence[int] | None, coefficients: Sequence[float]
) -> list[tuple[str, Vector]]:
    """Return every vector at every layer that is to be tried, each with its name.

    Args:
        vectors: A vector, several, or several by name.
        layers: Layers to try; None for all that a vector has.
        coefficients: Coefficients to try, dimensionless.

    Raises:
        SelectionError: Nothing is left to try.
    """
    if isinstance(vectors, Vector):
        vectors = [vectors]
    if not isinstance(vectors, Mapping):
        named = [(_name(vector, k), vector) for k, vector in enumerate(vectors)]
    else:
        named = list(vectors.items())
    found = [
        (name, vector[layer])
        for name, vector in named
        for layer in vector.layers
        if layers is None or layer in layers
    ]
    if not found or not len(coefficients):
        raise SelectionError(
            "there is nothing to choose from",
            found=f"{len(named)} vectors, layers {layers}, coefficients {list(coefficients)}",
            expected="a residual vector with one of the layers, and a coefficient",
            do="look at vector.layers",
        )
    return found


def _name(vector: Vector, k: int) -> str:
    position = vector.provenance.arguments.get("position")
    return str(position) if position is not None else f"vector {k}"


def trials_of(
    model: Model,
    name: str,
    knob: Composition,
    coefficients: Sequence[float],
    both_ways: bool,
    validation: Pairs,
    text: NeutralText,
    reduce: Reduce,
) -> list[Trial]:
    """Return a trial per coefficient: the mean over the ends of the knob, and the larger KL.

    Args:
        model: The model.
        name: What the candidate is called.
        knob: Its composition, of one domain and one layer.
        coefficients: Coefficients to try, dimensionless.
        both_ways: Whether the negated coefficient is tried on the swapped pairs as well.
        validation: Pairs to score.
        text: Neutral text for KL.
        reduce: Score answers by the mean or the sum of their tokens' log-probabilities.
    """
    n = len(coefficients)
    there = torch.tensor([[number(c)] for c in coefficients], dtype=torch.float64)
    settings = torch.cat([there, -there]) if both_ways else there
    data = {"": validation}
    rows = preferences(model, knob, settings, data, reduce, finite=False)
    found = [row[""] for row in rows]
    costs = torch.tensor([kl for kl, _ in SideEffects(model, knob, text)(settings)]).double()
    trials = []
    for k, coefficient in enumerate(coefficients):
        back = [Preference(p.rejected, p.chosen, reduce) for p in found[n + k :: n]]
        ends = [found[k], *back]
        finite = all(bool(torch.isfinite(end.margins).all()) for end in ends)
        trials.append(
            Trial(
                name,
                knob.parts[knob.domains[0]].vector.layers[0],
                float(coefficient),
                accuracy=sum(e.accuracy.value for e in ends) / len(ends) if finite else math.nan,
                likelihood=sum(float(end.chosen.mean()) for end in ends) / len(ends),
                kl=float(costs[k::n].max()),
            )
        )
    return trials


def best_of(trials: Sequence[Trial], kl_budget: float) -> Trial:
    """Return the most accurate trial within the budget, of equals the one of likeliest answers.

    Args:
        trials: What was tried.
        kl_budget: Limit on KL, nats per response token.

    Raises:
        SelectionError: No trial is finite, or none keeps the budget.
    """
    finite = [t for t in trials if t.finite]
    allowed = [t for t in finite if t.kl <= kl_budget]
    if not finite:
        raise SelectionError(
            "no setting has finite numbers",
            found=f"{len(trials)} settings at which the model overflows",
            expected="at least one at which scores and KL are finite",
            do="try smaller coefficients, and look at the model's logits",
        )
    if not allowed:
        least = min(finite, key=lambda t: t.kl)
        raise SelectionError(
            "no setting keeps the side-effect budget",
            found=f"least KL {least.kl:.3g} nats per token ({least.candidate}, layer "
            f"{least.layer}, coefficient {least.coefficient:g})",
            expected=f"at most {kl_budget:g}",
            do="try smaller coefficients, or allow a larger kl_budget",
        )
    return max(allowed, key=lambda trial: (trial.accuracy, trial.likelihood))
