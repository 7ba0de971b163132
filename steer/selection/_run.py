"""Choosing where and how strongly to steer."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tqdm.auto import tqdm

from steer.algebra import Composition, DomainGate, Scope
from steer.engine import unsteered
from steer.errors import SelectionError
from steer.measure import NEUTRAL_PROMPTS, Judge, NeutralText, neutral_text, prompt_prefix
from steer.measure._reduce import Reduce
from steer.model import Model, check_model
from steer.network import as_prompts
from steer.pairs import Pairs, Prompt, as_pairs
from steer.selection._answers import visible
from steer.selection._beside import Beside, on_pairs, palrs_setting
from steer.selection._candidates import Candidates, alternatives, candidates_of
from steer.selection._checked import (
    ByDomain,
    check,
    check_alternatives,
    check_budget,
    named,
    split_by_domain,
    warn_of_training,
)
from steer.selection._held_out import HeldOutResult, held_out
from steer.selection._kernel import SideEffects, at
from steer.selection._race import Race
from steer.selection._result import Selection
from steer.selection._setting import Limits, Objective, worst_accuracy
from steer.selection._space import Axes, space_of
from steer.selection._strategy import Strategy, strategy_of
from steer.selection._strength import displacement
from steer.selection._task import Field, Outcome, Task

_ALTERNATIVES = (0.25, 0.5, 0.75, 1.0)  # coefficients that an exhaustive search tries
_COMPOSITION = tuple(k / 10 for k in range(-10, 11))
_KL = 0.5  # default budget of alternatives, nats per response token
_THIRDS = 6  # neutral prompts from which a race gives each purpose prompts of its own

Neutral = Sequence[Prompt] | NeutralText | None


def select(
    model: Model,
    candidates: Candidates,
    pairs: Pairs | ByDomain,
    *,
    limits: Limits | None = None,
    strategy: str | Strategy | None = None,
    coefficients: Axes | None = None,
    layers: Sequence[int] | None = None,
    operator: str | None = None,
    scope: Scope | str | None = None,
    gate: DomainGate | None = None,
    both_ways: bool = False,
    budget: int | None = None,
    objective: Objective = worst_accuracy,
    neutral: Neutral = NEUTRAL_PROMPTS,
    test: Pairs | ByDomain | None = None,
    instruction: str | None = None,
    judge: Judge | None = None,
    wanted: str | None = None,
    answers: bool = True,
    reduce: Reduce = "mean",
    seed: int = 0,
    progress: bool = True,
) -> Selection:
    """Choose on held-out pairs where and how strongly to steer, and report on pairs never seen.

    Among the settings that keep every limit the one with the greatest objective is chosen; ties go
    to the greater mean accuracy, then to the setting under which the preferred answers are
    likeliest. `strategy="race"` orders its finalists by judged answers and margin where their
    accuracies cannot be told apart (see `steer.selection.Race`).

    Args:
        model: The model; it must not be steered.
        candidates: Alternatives to choose one of: a recording of one domain (the mean difference
            at each of its positions and layers), a vector, several, or several by name, each tried
            at each of its layers. Or vectors to use together: `compose(medical=…, legal=…)`, or an
            earlier selection, of which each domain gets a coefficient.
        pairs: Pairs that the vectors were not made from, or such pairs by domain. Domains of the
            candidates are asked to move, the others must stay (`Limits.off_target`). To ask a
            domain to move the other way, swap its pairs.
        limits: What a setting may cost; by default `Limits(kl=0.5)` for alternatives and nothing
            for a composition.
        strategy: `race`, `exhaustive`, `coarse_to_fine`, or an object with a method
            `search(tasks, field)`. By default a race of alternatives, `exhaustive` where
            coefficients are named for them, and `coarse_to_fine` for a composition.
        coefficients: Values to try, dimensionless, or by domain. A race needs none: it calibrates
            each candidate to the KL budget.
        layers: Layers of the alternatives to try; by default all that a vector has.
        operator: Operator to inject with, instead of `add` or of those of a composition.
        scope: Tokens to inject at, instead of all or of those of a composition.
        gate: A domain gate, if the vectors will be used behind one.
        both_ways: Whether the knob is to work at both ends: every setting is also measured with
            the coefficients negated and chosen and rejected swapped. Numbers are then means over
            both ends, KL is the larger one, and the choice is tested at both.
        budget: The most settings that are measured, of each candidate or, in a race, of all: fewer
            candidates are raced and refined. By default all of a grid, 256 of `coarse_to_fine`.
        objective: Returns what is to be large from the numbers of each domain asked to move:
            `accuracy`, `margin`, `likelihood`, `n`. By default the accuracy where it is lowest.
        neutral: Prompts of no domain, or neutral text prepared by `neutral_text`, on which KL
            and perplexity are measured; None to leave both out. A race uses a part of the prompts
            for its screen and reports the KL on another.
        test: Pairs for the reported numbers; without them, a part of `pairs` is kept back.
        instruction: System message of the prompted baseline; without it, two chosen answers of
            each domain's validation pairs are shown as earlier turns.
        judge: A judge of generated answers.
        wanted: The label that the judge is to give.
        answers: Whether some prompts of the test pairs are answered before and after.
        reduce: Score answers by the mean or the sum of their tokens' log-probabilities.
        seed: Seed of the split, of the search and of the random vectors.
        progress: Whether to show progress bars.

    Returns:
        The choice and why, with every setting measured, its test result, baselines and evidence.

    Raises:
        SteeringError: The model is being steered.
        SelectionError: Nothing to choose from, pairs that do not go with the candidates, limits
            that no setting keeps, or test pairs that are also used to choose.
        CompositionError: Coefficients that cannot be used.
        FitError: A vector does not fit this model.
    """
    check_model(model)
    unsteered(model.engine, "select")
    check_budget(budget)
    one = alternatives(candidates)
    pairs = pairs if isinstance(pairs, Mapping) else as_pairs(pairs)
    if one:
        check_alternatives(candidates, pairs)
    found = candidates_of(candidates, layers, operator, scope, gate)
    own = named(found[0].composition, pairs, one=one)
    warn_of_training(found, own)
    validation, unseen = split_by_domain(own, test, found[0].composition, seed, one=one)
    moved = tuple(name for name in found[0].composition.domains if name in validation)
    limits = limits or (Limits(kl=_KL) if one and neutral is not None else Limits())
    check(limits, moved, validation, neutral)
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    if strategy is None:
        strategy = name = (
            "coarse_to_fine" if not one else "race" if coefficients is None else "exhaustive"
        )
    how = strategy_of(strategy)
    text, fisher, report = _texts(model, neutral, isinstance(how, Race))
    field = Field(
        model,
        tuple(found),
        validation,
        moved,
        limits,
        objective,
        reduce,
        fisher,
        text,
        None if judge is None else (judge, wanted),
        seed,
        progress,
        both_ways,
    )
    if coefficients is not None and isinstance(how, Race):
        raise SelectionError(
            "a race calibrates coefficients of its own",
            found="coefficients beside a race",
            expected="one of them",
            do="leave the coefficients out, or strategy='exhaustive'",
        )
    if coefficients is None:
        coefficients = _ALTERNATIVES if one else _COMPOSITION
    tasks, bar = _tasks(field, how, coefficients, budget)
    with bar:
        outcome = how.search(tasks, field) or chosen(tasks, limits)
    setting = found[outcome.candidate].composition(list(outcome.best.coefficients))
    trials = tuple(result for task in tasks for result in task.results)
    tested = {domain: unseen[domain] for domain in moved}
    asked = [pair.prompt for part in tested.values() for pair in part]
    tried = _directions(tasks) if isinstance(how, Race) else len(trials)
    held, beside = _held_out(field, setting, tested, instruction, tried, candidates)
    return Selection(
        composition=setting,
        best=outcome.best,
        trials=trials,
        limits=limits,
        settings=len(trials) if isinstance(how, Race) else sum(len(t.space) for t in tasks),
        evaluated=sum(task.evaluated for task in tasks),
        held_out=held,
        back=_back(field, setting, tested, tried),
        visible=visible(model, setting, asked, field.judge) if answers else None,
        kl=_reported_kl(field, setting, report),
        displacement=displacement(model, setting, outcome.best.coefficients),
        screened=outcome.screened,
        reduce=reduce,
        strategy=name,
        palrs=beside,
        preferred=outcome.why,
    )


def chosen(tasks: Sequence[Task], limits: Limits) -> Outcome:
    """Return the best setting that was measured."""
    every = [(k, result) for k, task in enumerate(tasks) for result in task.results]
    finite = [(k, result) for k, result in every if result.finite]
    if not finite:
        raise SelectionError(
            "no setting was measured" if not every else "no setting has finite numbers",
            found=f"{len(every)} settings measured, of {sum(len(t.space) for t in tasks)}",
            expected="at least one at which scores, objective and side effects are finite",
            do="try smaller coefficients, and look at what the objective returns",
        )
    number, best = max(finite, key=lambda found: found[1].rank(limits.violation(found[1])))
    if limits.violation(best) == 0:
        return Outcome(number, best)
    over = limits.excess(best)
    exceeds = ", ".join(f"{name} by {by:.3g}" for name, by in over.items() if by > 0)
    raise SelectionError(
        "no setting keeps the limits",
        found=f"{len(every)} settings measured; closest {best.at}, which exceeds {exceeds}",
        expected=", ".join(f"{name} at most {getattr(limits, name):g}" for name in over),
        do="try smaller coefficients, a larger budget, or allow more",
    )


def _texts(
    model: Model, neutral: Neutral, race: bool
) -> tuple[NeutralText | None, NeutralText | None, NeutralText | None]:
    """Return neutral text to measure settings on, for the screen, and for the reported KL.

    A race has three disjoint sets where there are prompts enough, so that the KL reported is not
    that on which coefficients were calibrated; other strategies report what they measured.
    """
    if neutral is None:
        return None, None, None
    if not race or isinstance(neutral, NeutralText):
        text = neutral if isinstance(neutral, NeutralText) else neutral_text(model, neutral)
        return text, text if race else None, None
    prompts = as_prompts(neutral)
    text = neutral_text(model, prompts)  # one batch
    if len(text.prompts) < _THIRDS:
        return text, text, None
    parts = [
        NeutralText(text.prompts[k::3], text.responses[k::3], text.logits[k::3]) for k in range(3)
    ]
    return parts[0], parts[1], parts[2]


def _directions(tasks: Sequence[Task]) -> int:
    """Return how many candidates were raced, by sign, whatever their heats and strengths.

    A random direction has as many chances to look good as there are directions to choose from; the
    random vectors that the chosen one is compared with are pushed as hard as it is.
    """
    return sum(len({result.coefficients[0] > 0 for result in task.results}) for task in tasks)


def _tasks(
    field: Field, how: Strategy, coefficients: Axes, budget: int | None
) -> tuple[list[Task], Any]:
    """Return one search for each candidate, and the bar that counts their settings."""
    evaluator = field.evaluator(field.pairs, None if isinstance(how, Race) else field.text)
    spaces = [space_of(c.composition, coefficients) for c in field.candidates]
    most = getattr(how, "budget", None) if budget is None else budget
    total = min(sum(map(len, spaces)), (most or math.inf) * len(spaces))
    hidden = not field.progress or isinstance(how, Race)
    bar = tqdm(total=total, desc="select", unit="setting", disable=hidden)
    tasks = [
        Task(
            space,
            partial(evaluator, candidate),
            field.limits,
            seed=field.seed,
            budget=budget,
            bar=bar,
        )
        for candidate, space in zip(field.candidates, spaces, strict=True)
    ]
    return tasks, bar


def _held_out(
    field: Field,
    setting: Composition,
    unseen: Mapping[str, Pairs],
    instruction: str | None,
    settings: int,
    given: Candidates,
) -> tuple[dict[str, HeldOutResult], Beside | None]:
    """Return what the setting does on unseen pairs, beside all baselines and PaLRS's rule."""
    prefixes = {name: prompt_prefix(instruction, field.pairs[name]) for name in unseen}
    other = palrs_setting(field.model, given, field.candidates[0], field.text, field.limits.kl)
    found, compared = held_out(
        field.model,
        setting,
        unseen,
        field.reduce,
        field.seed,
        settings,
        prefixes,
        [] if other is None else [other[0]],
    )
    return found, None if other is None else on_pairs(other[1], *compared)


def _back(
    field: Field, setting: Composition, unseen: Mapping[str, Pairs], settings: int
) -> dict[str, HeldOutResult] | None:
    """Return what the negated setting does on swapped unseen pairs, if both ways were asked for."""
    if not field.both_ways:
        return None
    turned = setting(-setting.coefficients[0])
    swapped = {name: part.swap() for name, part in unseen.items()}
    return held_out(field.model, turned, swapped, field.reduce, field.seed, settings)[0]


def _reported_kl(field: Field, setting: Composition, report: NeutralText | None) -> float | None:
    """Return the KL of the setting on text that took no part in choosing, if there is any."""
    if report is None:
        return None
    ends = [at(setting), at(setting(-setting.coefficients[0]))][: 1 + field.both_ways]
    return max(kl for kl, _ in SideEffects(field.model, report)(ends))
