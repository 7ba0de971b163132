"""Layer, position and strength by held-out preference accuracy under a side-effect budget."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from tqdm.auto import tqdm

from steer.choice import Choice, Trial
from steer.composition import Composition, Part, as_composition
from steer.errors import SelectionError
from steer.evaluate.kl import NeutralText, kl_per_token, neutral_text
from steer.evaluate.neutral import NEUTRAL_PROMPTS
from steer.evaluate.preference import Preference, Reduce, preference
from steer.gate import DomainGate
from steer.model import Model
from steer.pairs import Message, Pairs, Prompt
from steer.provenance import Tuning
from steer.scope import ALL, Scope, parse_scope
from steer.vector import Vector

COEFFICIENTS = (0.25, 0.5, 0.75, 1.0)
Candidates = Vector | Sequence[Vector] | Mapping[str, Vector]


def select(
    model: Model,
    vectors: Candidates,
    held_out: Pairs,
    *,
    kl_budget: float = 0.5,
    coefficients: Sequence[float] = COEFFICIENTS,
    layers: Sequence[int] | None = None,
    operator: str = "add",
    scope: Scope | str = ALL,
    gate: DomainGate | None = None,
    both_ways: bool = False,
    neutral: Sequence[Prompt] | NeutralText = NEUTRAL_PROMPTS,
    test: Pairs | None = None,
    instruction: str | None = None,
    reduce: Reduce = "mean",
    seed: int = 0,
    progress: bool = True,
) -> Choice:
    """Choose vector, layer and coefficient on held-out pairs, and report on pairs never seen.

    Every (vector, layer, coefficient) is tried. Among those with KL(steered‖unsteered) within the
    budget the highest preference accuracy on the validation pairs wins. Accuracy saturates, so
    ties go to the setting under which the preferred answers are likeliest: too strong a push
    makes every answer unlikely. The chosen setting and its baselines are then measured once on
    the test pairs.

    Args:
        model: The model; it must not be steered.
        vectors: A vector, several, or several by name (of position, method, …); each is tried at
            each of its layers.
        held_out: Pairs that the vectors were not made from.
        kl_budget: Limit on KL, nats per response token, on continuations of neutral prompts.
        coefficients: Coefficients to try, dimensionless.
        layers: Layers to try; by default all that a vector has.
        operator: Operator to inject with.
        scope: Tokens to inject at.
        gate: A domain gate, if the vector will be used behind one.
        both_ways: Whether the knob is to work at both ends: every setting is also tried with the
            coefficient negated and chosen and rejected swapped. Accuracy and likelihood are then
            means over both ends, and KL is the larger one.
        neutral: Prompts of no domain, or neutral text prepared by `neutral_text`.
        test: Pairs for the reported number; without them, a half of `held_out` is kept back.
        instruction: System message of the prompted baseline; without it, two chosen answers of
            the validation pairs are shown as earlier turns.
        reduce: Score answers by the mean or the sum of their tokens' log-probabilities.
        seed: Seed of the split and of the random direction.
        progress: Whether to show a progress bar.

    Returns:
        The choice, with every trial, its test result and baselines.

    Raises:
        SelectionError: No candidate, a budget that no setting keeps, or test pairs that are also
            used to choose.
    """
    scope = parse_scope(scope)
    validation, unseen = _two_parts(held_out, test, seed)
    settings = _settings(vectors, layers, coefficients)
    text = neutral if isinstance(neutral, NeutralText) else neutral_text(model, neutral)
    trials = []
    for name, vector, coefficient in tqdm(settings, desc="select", disable=not progress):
        ends = [(coefficient, validation)]
        if both_ways:
            ends.append((-coefficient, validation.swap()))
        found = []
        for c, asked in ends:
            with model.steered(_composed(vector, c, operator, scope, gate)):
                found.append((preference(model, asked, reduce=reduce), kl_per_token(model, text)))
        trials.append(_trial(name, vector.layers[0], coefficient, found))
    best = _best(trials, kl_budget)
    chosen = settings[trials.index(best)][1]
    steered = _composed(chosen, best.coefficient, operator, scope, gate)
    random = _composed(random_like(chosen, seed), best.coefficient, operator, scope, gate)
    shots = _prefix(instruction, validation)
    baselines = {
        "base": preference(model, unseen, reduce=reduce),
        "random": _measured(model, random, unseen, reduce),
        "prompted": preference(model, unseen, reduce=reduce, prefix=shots),
    }
    test_share = _measured(model, steered, unseen, reduce).accuracy
    tuning = Tuning(best.layer, best.coefficient, operator, scope, test_share.value, best.kl)
    return Choice(
        vector=replace(chosen, tuning=tuning, gate=gate),
        best=best,
        trials=tuple(trials),
        kl_budget=kl_budget,
        test=test_share,
        baselines={name: found.accuracy for name, found in baselines.items()},
        reduce=reduce,
    )


def random_like(vector: Vector, seed: int) -> Vector:
    """Return random directions at the residual sites of a vector, each of the norm it has there.

    Args:
        vector: A residual vector.
        seed: Seed of the directions; equal seeds give equal directions.

    Returns:
        A vector without provenance.
    """
    generator = torch.Generator().manual_seed(seed)
    directions = {}
    for layer in vector.layers:
        v = vector.direction(layer)
        g = torch.randn(v.shape, generator=generator, dtype=torch.float64)
        directions[layer] = (g * (v.double().norm().cpu() / g.norm())).to(v.dtype)
    return Vector.of(directions)


def _two_parts(held_out: Pairs, test: Pairs | None, seed: int) -> tuple[Pairs, Pairs]:
    if test is None:
        validation, unseen = held_out.split(0.5, 0.5, seed=seed)
        return validation, unseen
    shared = set(held_out) & set(test)
    if shared:
        raise SelectionError(
            "test pairs are also used to choose",
            found=f"{len(shared)} pairs in both held_out and test",
            expected="pairs that the selection never sees",
            do="split once: held_out, test = pairs.split(0.5, 0.5)",
        )
    return held_out, test


def _settings(
    vectors: Candidates, layers: Sequence[int] | None, coefficients: Sequence[float]
) -> list[tuple[str, Vector, float]]:
    """Return (name, vector at one layer, coefficient) for everything to be tried."""
    if isinstance(vectors, Vector):
        vectors = [vectors]
    if not isinstance(vectors, Mapping):
        named = [(_name(vector, k), vector) for k, vector in enumerate(vectors)]
    else:
        named = list(vectors.items())
    settings = [
        (name, vector[layer], float(coefficient))
        for name, vector in named
        for layer in vector.layers
        if layers is None or layer in layers
        for coefficient in coefficients
    ]
    if not settings:
        raise SelectionError(
            "there is nothing to choose from",
            found=f"{len(named)} vectors, layers {layers}, coefficients {list(coefficients)}",
            expected="a residual vector with one of the layers, and a coefficient",
            do="look at vector.layers",
        )
    return settings


def _name(vector: Vector, k: int) -> str:
    position = vector.provenance.arguments.get("position")
    return str(position) if position is not None else f"vector {k}"


def _composed(
    vector: Vector, coefficient: float, operator: str, scope: Scope, gate: DomainGate | None
) -> Composition:
    composed = as_composition(Part(vector, operator, scope)).gated(gate)
    return composed(coefficient)


def _measured(model: Model, setting: Composition, pairs: Pairs, reduce: Reduce) -> Preference:
    with model.steered(setting):
        return preference(model, pairs, reduce=reduce)


def _trial(
    name: str, layer: int, coefficient: float, found: Sequence[tuple[Preference, float]]
) -> Trial:
    """Return the mean of what was found at each end of the knob, and the larger KL."""
    n = len(found)
    return Trial(
        name,
        layer,
        coefficient,
        accuracy=sum(measured.accuracy.value for measured, _ in found) / n,
        likelihood=sum(float(measured.chosen.mean()) for measured, _ in found) / n,
        kl=max(0.0, *(kl for _, kl in found)),
    )


def _best(trials: Sequence[Trial], kl_budget: float) -> Trial:
    allowed = [trial for trial in trials if trial.kl <= kl_budget]
    if not allowed:
        least = min(trials, key=lambda trial: trial.kl)
        raise SelectionError(
            "no setting keeps the side-effect budget",
            found=f"least KL {least.kl:.3g} nats per token ({least.candidate}, layer "
            f"{least.layer}, coefficient {least.coefficient:g})",
            expected=f"at most {kl_budget:g}",
            do="try smaller coefficients, or allow a larger kl_budget",
        )
    return max(allowed, key=lambda trial: (trial.accuracy, trial.likelihood))


def _prefix(instruction: str | None, pairs: Pairs) -> tuple[Message, ...]:
    """Return the messages of the prompted baseline: an instruction, or two worked examples."""
    if instruction is not None:
        return (Message("system", instruction),)
    shots: list[Message] = []
    for pair in [pair for pair in pairs if isinstance(pair.prompt, str)][:2]:
        shots += [Message("user", str(pair.prompt)), Message("assistant", pair.chosen)]
    return tuple(shots)
