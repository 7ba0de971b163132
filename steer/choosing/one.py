"""Layer, position and strength by held-out preference accuracy under a limit on side effects."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

from tqdm.auto import tqdm

from steer.choice import Choice, Trial
from steer.choosing.candidates import Candidates, best_of, candidates_of, trials_of
from steer.composition import Part, as_composition
from steer.engine.base import unsteered
from steer.errors import SelectionError
from steer.evaluate.baselines import prompt_prefix
from steer.evaluate.kl import NeutralText, neutral_text
from steer.evaluate.neutral import NEUTRAL_PROMPTS
from steer.evaluate.preference import Reduce, preference
from steer.gate import DomainGate
from steer.listed import listed
from steer.model import Model, check_model
from steer.pairs import Pairs, Prompt, as_pairs
from steer.provenance import Tuning
from steer.scope import ALL, Scope, parse_scope
from steer.search.tested import tested
from steer.vector import Vector
from steer.vector_rules import is_number

COEFFICIENTS = (0.25, 0.5, 0.75, 1.0)


def select_one(
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
            coefficient negated and chosen and rejected swapped. Accuracy and likelihood of a trial
            are then means over both ends, KL is the larger one, and the choice is tested at both.
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
        SteeringError: The model is being steered.
        SelectionError: No candidate, a budget that no setting keeps, or test pairs that are also
            used to choose.
    """
    check_model(model)
    unsteered(model.engine, "select")
    if not (is_number(kl_budget) and kl_budget >= 0):
        raise SelectionError(
            "this budget cannot be kept",
            found=f"kl_budget {kl_budget!r}",
            expected="a number of at least 0, in nats per token",
            do="kl_budget=0.5",
        )
    scope = parse_scope(scope)
    layers = None if layers is None else listed("layers", layers)
    coefficients = listed("coefficients", coefficients)
    held_out, test = as_pairs(held_out), None if test is None else as_pairs(test)
    validation, unseen = _two_parts(held_out, test, seed)
    candidates = candidates_of(vectors, layers, coefficients)
    _warn_of_training(candidates, held_out)
    text = neutral if isinstance(neutral, NeutralText) else neutral_text(model, neutral)
    trials: list[Trial] = []
    for name, vector in tqdm(candidates, desc="select", disable=not progress):
        knob = as_composition(Part(vector, operator, scope)).gated(gate)
        trials += trials_of(model, name, knob, coefficients, both_ways, validation, text, reduce)
    best = best_of(trials, kl_budget)
    chosen = candidates[trials.index(best) // len(coefficients)][1]
    knob = as_composition(Part(chosen, operator, scope)).gated(gate)
    ends = [
        tested(model, knob(c), {"": pairs}, reduce, seed, len(trials))[""]
        for c, pairs in ((best.coefficient, unseen), (-best.coefficient, unseen.swap()))
        if both_ways or pairs is unseen
    ]
    found = ends[0]
    shots = prompt_prefix(instruction, validation)
    prompted = preference(model, unseen, reduce=reduce, prefix=shots).accuracy
    tuning = Tuning(best.layer, best.coefficient, operator, scope, found.steered.value, best.kl)
    return Choice(
        vector=replace(chosen, tuning=tuning, gate=gate),
        best=best,
        trials=tuple(trials),
        kl_budget=kl_budget,
        test=found.steered,
        baselines={"base": found.base, "random": found.random, "prompted": prompted},
        reduce=reduce,
        evidence=found.evidence,
        back=ends[1] if both_ways else None,
    )


def _warn_of_training(candidates: Sequence[tuple[str, Vector]], held_out: Pairs) -> None:
    """Warn where a vector was made from the very pairs that are to choose and to test."""
    parts = [held_out, *(held_out.of_domain(name) for name in held_out.domains)]
    marks = {part.fingerprint for part in parts}
    if any(vector.provenance.pairs_fingerprint in marks for _, vector in candidates):
        warnings.warn(
            "these held-out pairs are those that the vector was made from, on which any direction "
            "looks good; split them first: train, held_out = pairs.split(0.7, 0.3)",
            stacklevel=4,
        )


def _two_parts(held_out: Pairs, test: Pairs | None, seed: int) -> tuple[Pairs, Pairs]:
    if test is None:
        validation, unseen = held_out.split(0.5, 0.5, seed=seed)
        return validation, unseen
    shared = {pair.text for pair in held_out} & {pair.text for pair in test}
    if shared:
        raise SelectionError(
            "test pairs are also used to choose",
            found=f"{len(shared)} pairs in both held_out and test",
            expected="pairs that the selection never sees",
            do="split once: held_out, test = pairs.split(0.5, 0.5)",
        )
    return held_out, test
