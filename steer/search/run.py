"""Choosing the coefficients of many domains together, under limits on side effects."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict

from steer.composition import Composition, Steerable, as_composition
from steer.engine.base import unsteered
from steer.errors import SelectionError
from steer.evaluate.baselines import prompt_prefix
from steer.evaluate.kl import NeutralText, neutral_text
from steer.evaluate.neutral import NEUTRAL_PROMPTS
from steer.evaluate.preference import Reduce, preference
from steer.model import Model, check_model
from steer.pairs import Pairs, Prompt
from steer.search.checked import ByDomain, check, check_budget, named, split_by_domain
from steer.search.evaluator import Evaluator
from steer.search.limits import Limits
from steer.search.result import Selection
from steer.search.space import Axes, Space, space_of
from steer.search.strategy import Strategy, strategy_of
from steer.search.task import Task
from steer.search.tested import tested
from steer.search.tried import Objective, Tried, worst_accuracy
from steer.store.strict_json import dumps
from steer.sweeps.request import fingerprint, is_named, measure_identity

COEFFICIENTS = tuple(k / 10 for k in range(-10, 11))


def select_coefficients(
    model: Model,
    what: Steerable,
    held_out: Pairs | ByDomain,
    *,
    limits: Limits | None = None,
    how: str | Strategy = "coarse_to_fine",
    coefficients: Axes = COEFFICIENTS,
    budget: int | None = None,
    objective: Objective = worst_accuracy,
    neutral: Sequence[Prompt] | NeutralText | None = NEUTRAL_PROMPTS,
    test: Pairs | ByDomain | None = None,
    instruction: str | None = None,
    reduce: Reduce = "mean",
    seed: int = 0,
    progress: bool = True,
) -> Selection:
    """Choose a coefficient for each domain on held-out pairs, and report on pairs never seen.

    Among the settings that keep every limit the one with the greatest objective is chosen; ties
    go to the greater mean accuracy, then to the smaller sum of squared coefficients.

    Args:
        model: The model; it must not be steered.
        what: The vectors by domain, of either kind; a gate is kept.
        held_out: Pairs by domain that the vectors were not made from. Domains of the composition
            are asked to move, the others must stay (`Limits.off_target`). To ask a domain to
            move the other way, swap its pairs. A composition of one domain may have pairs of none.
        limits: What a setting may cost; nothing by default.
        how: `grid`, `coarse_to_fine`, `optuna`, or an object with a method `search(task)`.
        coefficients: Values to try for every domain, or by domain; dimensionless.
        budget: The most settings that are tried; by default all of a grid, 256 otherwise.
        objective: Returns what is to be large from the numbers of each domain asked to move:
            `accuracy`, `margin`, `likelihood`, `n`. By default the accuracy where it is lowest.
        neutral: Prompts of no domain, or neutral text prepared by `neutral_text`, on which KL
            and perplexity are measured; None to leave both out.
        test: Pairs for the reported numbers; without them, a half of `held_out` is kept back.
        instruction: System message of the prompted baseline; without it, two chosen answers of
            each domain's validation pairs are shown as earlier turns.
        reduce: Score answers by the mean or the sum of their tokens' log-probabilities.
        seed: Seed of the split, of the search and of the random vectors.
        progress: Whether to show a progress bar.

    Returns:
        The choice and why, with every trial, its test result, baselines and evidence.

    Raises:
        SteeringError: The model is being steered.
        SelectionError: Nothing to choose from, pairs that do not go with the composition, limits
            that no setting keeps, or test pairs that are also used to choose.
        CompositionError: Coefficients that cannot be used.
        FitError: A vector does not fit this model.
    """
    check_model(model)
    unsteered(model.engine, "select")
    composition = as_composition(what)
    limits = limits or Limits()
    validation, unseen = split_by_domain(named(composition, held_out), test, composition, seed)
    moved = tuple(name for name in composition.domains if name in validation)
    check(limits, moved, validation, neutral)
    check_budget(budget)
    text = _text(model, neutral)
    measure = Evaluator(model, composition, validation, moved, objective, text, reduce)
    space = space_of(composition, coefficients)
    mark = _request(model, composition, space, validation, limits, objective, reduce, text)
    strategy = strategy_of(how)
    task = Task(
        space,
        measure,
        limits,
        seed=seed,
        budget=budget,
        fingerprint=mark if is_named(objective) else "",  # type: ignore[arg-type]
        progress=progress,
        most=getattr(strategy, "budget", None) if budget is None else budget,
    )
    try:
        strategy.search(task)
    finally:
        task.close()
    best = chosen(task)
    own = {name: unseen[name] for name in moved}
    setting = composition(best.coefficients)
    found = tested(model, setting, own, reduce, seed, len(task.tried))
    prompted = {
        name: preference(
            model, part, reduce=reduce, prefix=prompt_prefix(instruction, validation[name])
        ).accuracy
        for name, part in own.items()
    }
    return Selection(
        composition=setting,
        best=best,
        trials=tuple(task.tried.values()),
        limits=limits,
        settings=len(space),
        evaluated=task.evaluated,
        test={name: end.steered for name, end in found.items()},
        baselines={
            name: {"base": end.base, "random": end.random, "prompted": prompted[name]}
            for name, end in found.items()
        },
        evidence={name: end.evidence for name, end in found.items()},
        reduce=reduce,
        how=how if isinstance(how, str) else type(how).__name__,
    )


def chosen(task: Task) -> Tried:
    """Return the best setting that a task tried.

    Args:
        task: A search that is done.

    Raises:
        SelectionError: Nothing was tried, or no setting keeps the limits.
    """
    best = task.best(1)
    if not best or not task.tried[best[0]].finite:
        raise SelectionError(
            "no setting was tried" if not best else "no setting has finite numbers",
            found=f"{len(task.tried)} settings tried, of {len(task.space)}",
            expected="at least one at which scores, objective and side effects are finite",
            do="try smaller coefficients, and look at what the objective returns",
        )
    if task.limits.violation(task.tried[best[0]]) == 0:
        return task.tried[best[0]]
    over = task.limits.excess(task.tried[best[0]])
    at = ", ".join(f"{c:g}" for c in task.space.coefficients(best[0]))
    exceeds = ", ".join(f"{name} by {by:.3g}" for name, by in over.items() if by > 0)
    kept = ", ".join(f"{name} at most {getattr(task.limits, name):g}" for name in over)
    raise SelectionError(
        "no setting keeps the limits",
        found=f"{len(task.tried)} settings tried; closest at ({at}), which exceeds {exceeds}",
        expected=kept,
        do="try smaller coefficients, a larger budget, or allow more",
    )


def _text(model: Model, neutral: Sequence[Prompt] | NeutralText | None) -> NeutralText | None:
    if neutral is None or isinstance(neutral, NeutralText):
        return neutral
    return neutral_text(model, neutral)


def _request(
    model: Model,
    composition: Composition,
    space: Space,
    pairs: ByDomain,
    limits: Limits,
    objective: Objective,
    reduce: Reduce,
    text: NeutralText | None,
) -> str:
    """Return the SHA-256 of everything that what is tried depends on."""
    request = {
        "sweep": fingerprint(model, composition, [], pairs, "preference", reduce),
        "axes": [list(axis) for axis in space.axes],
        "limits": asdict(limits),
        "objective": measure_identity(objective),  # type: ignore[arg-type]
        "neutral": None if text is None else [repr(p) for p in text.prompts] + [*text.responses],
    }
    return hashlib.sha256(dumps(request).encode()).hexdigest()
