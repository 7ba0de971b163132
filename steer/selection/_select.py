"""Choosing where and how strongly to steer."""

import math
from collections.abc import Mapping, Sequence

from steer._check import as_seed, integer
from steer.algebra import Composition, DomainGate, Scope
from steer.errors import ArgumentError, SelectionError
from steer.measure import NEUTRAL_PROMPTS, Judge, NeutralText, neutral_text, prompt_prefix
from steer.measure._grid import Axes
from steer.measure._reduce import Reduce
from steer.measure._scores import at
from steer.measure._side_effects import SideEffects
from steer.model import Model, check_model
from steer.network import as_prompts
from steer.pairs import Pairs, Prompt, as_pairs
from steer.selection._answers import visible
from steer.selection._candidates import Candidates, alternatives, candidates_of
from steer.selection._confirm import Beside, held_out, palrs_setting
from steer.selection._evaluator import Evaluator
from steer.selection._field import Field, Outcome, grid_of
from steer.selection._pairs import (
    ByDomain,
    check_alternatives,
    named,
    split_by_domain,
    warn_of_training,
)
from steer.selection._race import Race
from steer.selection._result import Selection
from steer.selection._setting import Limits, Objective, worst_accuracy
from steer.selection._strategy import Strategy, strategy_of
from steer.selection._strength import displacement

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
            `search(field)`. By default a race of alternatives, `exhaustive` where
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
        test: Pairs for the reported numbers. Without them half of `pairs` is kept back, so that
            after `train, pairs = all_pairs.split(0.6, 0.4)` the parts are those of
            `all_pairs.split()`: 60, 20 and 20 percent.
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
        ArgumentError: The seed or the budget is no integer, or beyond its bounds.
        CompositionError: Coefficients that cannot be used.
        FitError: A vector does not fit this model.
    """
    check_model(model, "select")
    seed = as_seed(seed)
    if budget is not None:
        budget = integer("budget", budget, least=1, do="budget=64 settings, or leave it out")
    one = alternatives(candidates)
    pairs = pairs if isinstance(pairs, Mapping) else as_pairs(pairs)
    if one:
        check_alternatives(candidates, pairs)
    found = candidates_of(candidates, layers, operator, scope, gate)
    composition = found[0].composition
    own = named(composition, pairs, one=one)
    warn_of_training(found, own)
    validation, unseen = split_by_domain(own, test, composition, seed, one=one)
    moved = tuple(name for name in composition.domains if name in validation)
    limits = limits or (Limits(kl=_KL) if one and neutral is not None else Limits())
    _check(limits, moved, validation, neutral)
    if strategy is None:
        default = "race" if coefficients is None else "exhaustive"
        strategy = default if one else "coarse_to_fine"
    how = strategy_of(strategy)
    race = isinstance(how, Race)
    if coefficients is not None and race:
        raise SelectionError(
            "a race calibrates coefficients of its own",
            found="coefficients beside a race",
            expected="one of them",
            do="leave the coefficients out, or strategy='exhaustive'",
        )
    if coefficients is None:
        coefficients = _ALTERNATIVES if one else _COMPOSITION
    text, fisher, report = _texts(model, neutral, race=race)
    options = {"both_ways": both_ways, "progress": progress and race}
    evaluator = Evaluator(model, validation, moved, objective, text, reduce, **options)
    field = Field(
        found,
        grid_of(composition, coefficients),
        evaluator,
        limits,
        fisher=fisher,
        report=report,
        judge=None if judge is None else (judge, wanted),
        seed=seed,
        budget=budget,
        progress=progress,
    )
    with field.counting(None if race else _total(field, how)):
        outcome = how.search(field) or field.chosen()
    tested = {domain: unseen[domain] for domain in moved}
    beside = palrs_setting(evaluator, candidates, found[0], limits.kl)
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    return _confirmed(field, outcome, tested, name, instruction, beside, answers=answers)


def _confirmed(
    field: Field,
    outcome: Outcome,
    unseen: Mapping[str, Pairs],
    strategy: str,
    instruction: str | None,
    beside: tuple[Composition, Beside] | None,
    *,
    answers: bool,
) -> Selection:
    """Return the setting chosen with what it does on unseen pairs and prompts."""
    evaluator, coefficients = field.evaluator, outcome.best.coefficients
    setting = field.candidates[outcome.candidate].composition(list(coefficients))
    tried = len(field.results)
    if outcome.screened is not None:  # the candidates by sign, whatever their heats and strengths
        tried = len({(k, result.coefficients[0] > 0) for k, result in field.results})
    prefixes = {name: prompt_prefix(instruction, evaluator.pairs[name]) for name in unseen}
    end, palrs = held_out(evaluator, setting, unseen, field.seed, tried, prefixes, beside)
    back = None
    if len(evaluator.signs) > 1:
        swapped = {name: part.swap() for name, part in unseen.items()}
        turned = setting(-setting.coefficients[0])
        back, _ = held_out(evaluator, turned, swapped, field.seed, tried)
    prompts = [pair.prompt for part in unseen.values() for pair in part]
    return Selection(
        composition=setting,
        best=outcome.best,
        trials=tuple(result for _, result in field.results),
        limits=field.limits,
        held_out=end,
        back=back,
        visible=visible(evaluator.model, setting, prompts, field.judge) if answers else None,
        kl=_reported_kl(field, setting),
        displacement=displacement(evaluator.model, setting, coefficients),
        screened=outcome.screened,
        reduce=evaluator.reduce,
        strategy=strategy,
        palrs=palrs,
        preferred=outcome.why,
    )


def _check(limits: Limits, moved: Sequence[str], pairs: ByDomain, neutral: Neutral) -> None:
    """Refuse limits, and pairs and limits, that cannot be used."""
    if not isinstance(limits, Limits):
        raise ArgumentError(
            "limits must be Limits",
            found=repr(limits),
            expected="Limits of steer.selection",
            do="limits=Limits(kl=1.0)",
        )
    if not moved:
        raise SelectionError(
            "no domain is asked to move",
            found=f"pairs of {sorted(pairs)}",
            expected="pairs of a domain that the composition has",
            do="name pairs and vectors alike",
        )
    lacking = [n for n in limits.names if n != "off_target" and neutral is None]
    if "off_target" in limits.names and len(pairs) == len(moved):
        lacking.append("off_target")
    if lacking:
        raise SelectionError(
            "a limit is set on what is not measured",
            found=f"limits on {lacking}",
            expected="neutral text for KL and perplexity, pairs of further domains for off_target",
            do="pass neutral=[...], add pairs of domains that must stay, or drop the limit",
        )


def _texts(
    model: Model, neutral: Neutral, *, race: bool
) -> tuple[NeutralText | None, NeutralText | None, NeutralText | None]:
    """Return neutral text to measure settings on, for the screen, and for the reported KL.

    A race has three disjoint sets where there are prompts enough, so that the KL reported is not
    that on which coefficients were calibrated; other strategies report what they measured.
    """
    if neutral is None:
        return None, None, None
    text = neutral if isinstance(neutral, NeutralText) else neutral_text(model, as_prompts(neutral))
    if not race or isinstance(neutral, NeutralText) or len(text.prompts) < _THIRDS:
        return text, text, None
    own, fisher, report = (
        NeutralText(text.prompts[k::3], text.responses[k::3], text.logits[k::3]) for k in range(3)
    )
    return own, fisher, report


def _total(field: Field, how: Strategy) -> float:
    """Return how many settings a search measures at most."""
    most = getattr(how, "budget", None) if field.budget is None else field.budget
    return min(math.prod(map(len, field.grid)), most or math.inf) * len(field.candidates)


def _reported_kl(field: Field, setting: Composition) -> float | None:
    """Return the KL of the setting on text that took no part in choosing, if there is any."""
    if field.report is None:
        return None
    ends = [at(setting, sign) for sign in field.evaluator.signs]
    return max(effect.kl for effect in SideEffects(field.evaluator.model, field.report)(ends))
