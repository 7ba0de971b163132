"""Layer, position and strength by held-out preference accuracy under limits on side effects."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import signature
from typing import Any, cast, overload

import torch
from tqdm.auto import tqdm

from steer.choice import Choice, Trial
from steer.composition import Composition, Part, as_composition
from steer.effects.margins import preferences
from steer.engine.base import unsteered
from steer.errors import SelectionError
from steer.evaluate.baselines import prompt_prefix
from steer.evaluate.kl import NeutralText, neutral_text
from steer.evaluate.neutral import NEUTRAL_PROMPTS
from steer.evaluate.preference import Preference, Reduce, preference
from steer.gate import DomainGate
from steer.model import Model
from steer.pairs import Pairs, Prompt
from steer.provenance import Tuning
from steer.scope import ALL, Scope, parse_scope
from steer.search.effects import SideEffects
from steer.search.limits import Limits
from steer.search.result import Selection
from steer.search.run import COEFFICIENTS as VALUES
from steer.search.run import ByDomain, select_coefficients
from steer.search.space import Axes
from steer.search.strategy import Strategy
from steer.search.tested import tested
from steer.search.tried import Objective, worst_accuracy
from steer.vector import Vector

COEFFICIENTS = (0.25, 0.5, 0.75, 1.0)
Candidates = Vector | Sequence[Vector] | Mapping[str, Vector]


@overload
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
) -> Choice: ...
@overload
def select(
    model: Model,
    vectors: Composition | Part,
    held_out: Pairs | ByDomain,
    *,
    limits: Limits | None = None,
    how: str | Strategy = "coarse_to_fine",
    coefficients: Axes = VALUES,
    budget: int | None = None,
    objective: Objective = worst_accuracy,
    neutral: Sequence[Prompt] | NeutralText | None = NEUTRAL_PROMPTS,
    test: Pairs | ByDomain | None = None,
    instruction: str | None = None,
    reduce: Reduce = "mean",
    seed: int = 0,
    progress: bool = True,
) -> Selection: ...
@overload
def select(
    model: Model,
    vectors: Vector | Mapping[str, Vector | Part],
    held_out: ByDomain,
    **options: Any,
) -> Selection: ...
def select(
    model: Model,
    vectors: Candidates | Composition | Part | Mapping[str, Vector | Part],
    held_out: Pairs | ByDomain,
    **options: Any,
) -> Choice | Selection:
    """Choose on held-out pairs where and how strongly to steer, and report on pairs never seen.

    Given one vector or alternatives to choose from, and pairs: the vector, its layer and its
    coefficient (`select_one`). Given a composition, or pairs by domain: a coefficient for each
    domain, under limits on side effects (`steer.search.select_coefficients`). A mapping is of
    alternatives, which must not have names of domains of the pairs.

    Args:
        model: The model; it must not be steered.
        vectors: What to choose from, or what to choose coefficients for.
        held_out: Pairs, or pairs by domain, that the vectors were not made from.
        **options: Those of the function that is meant.

    Returns:
        The choice.

    Raises:
        SteeringError: The model is being steered.
        SelectionError: Nothing to choose from, limits that no setting keeps, or test pairs that
            are also used to choose.
    """
    several = isinstance(vectors, Composition | Part) or not isinstance(held_out, Pairs)
    _check_options(options, several)
    if several:
        many = cast(Composition | Mapping[str, Vector | Part], vectors)
        return select_coefficients(model, many, held_out, **options)
    _check_alternatives(vectors, cast(Pairs, held_out))
    return select_one(model, cast(Candidates, vectors), cast(Pairs, held_out), **options)


def _check_options(options: Mapping[str, Any], several: bool) -> None:
    """Refuse an option of the other function, naming what stands for it here."""
    one, many = (signature(f).parameters for f in (select_one, select_coefficients))
    own, other = (many, one) if several else (one, many)
    foreign = [name for name in options if name in other and name not in own]
    if foreign:
        here = "limits=Limits(kl=…)" if several else "kl_budget=…"
        what = "a composition or pairs by domain" if several else "one vector or alternatives"
        raise SelectionError(
            f"an option does not go with {what}",
            found=", ".join(foreign),
            expected=" | ".join(n for n, p in own.items() if p.kind is p.KEYWORD_ONLY),
            do=f"a limit on KL is {here} here"
            if {"limits", "kl_budget"} & {*foreign}
            else "leave it out, or pass compose(…) or one vector, whichever is meant",
        )


def _check_alternatives(vectors: object, held_out: Pairs) -> None:
    """Refuse alternatives that have the names of domains: vectors to use together may be meant."""
    domains = {pair.domain for pair in held_out}
    alike = [name for name in vectors if name in domains] if isinstance(vectors, Mapping) else []
    if alike:
        raise SelectionError(
            "these vectors could be alternatives, or be used together",
            found=f"vectors by name, and pairs of domains of the same names: {alike}",
            expected="alternatives of other names, a composition, or pairs by domain",
            do="together: select(model, compose(vectors), pairs); one of them: pass a list",
        )


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
    unsteered(model.engine, "select")
    if not kl_budget >= 0:
        raise SelectionError(
            "this budget cannot be kept",
            found=f"kl_budget {kl_budget!r}",
            expected="a number of at least 0, in nats per token",
            do="kl_budget=0.5",
        )
    scope = parse_scope(scope)
    validation, unseen = _two_parts(held_out, test, seed)
    candidates = _candidates(vectors, layers, coefficients)
    text = neutral if isinstance(neutral, NeutralText) else neutral_text(model, neutral)
    trials: list[Trial] = []
    for name, vector in tqdm(candidates, desc="select", disable=not progress):
        knob = as_composition(Part(vector, operator, scope)).gated(gate)
        trials += _trials(model, name, knob, coefficients, both_ways, validation, text, reduce)
    best = _best(trials, kl_budget)
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


def _candidates(
    vectors: Candidates, layers: Sequence[int] | None, coefficients: Sequence[float]
) -> list[tuple[str, Vector]]:
    """Return every vector at every layer that is to be tried, each with its name."""
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


def _trials(
    model: Model,
    name: str,
    knob: Composition,
    coefficients: Sequence[float],
    both_ways: bool,
    validation: Pairs,
    text: NeutralText,
    reduce: Reduce,
) -> list[Trial]:
    """Return a trial per coefficient: the mean over the ends of the knob, and the larger KL."""
    n, there = len(coefficients), torch.tensor([[float(c)] for c in coefficients])
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


def _best(trials: Sequence[Trial], kl_budget: float) -> Trial:
    finite = [t for t in trials if all(map(math.isfinite, (t.accuracy, t.likelihood, t.kl)))]
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
