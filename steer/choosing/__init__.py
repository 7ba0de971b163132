"""Choosing where and how strongly to steer: one vector, or a coefficient for each domain."""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, cast, overload

from steer.choice import Choice
from steer.choosing.candidates import Candidates
from steer.choosing.one import COEFFICIENTS, select_one
from steer.composition import Composed, Composition, Part, Steerable
from steer.errors import SelectionError
from steer.evaluate.kl import NeutralText
from steer.evaluate.neutral import NEUTRAL_PROMPTS
from steer.evaluate.preference import Reduce
from steer.gate import DomainGate
from steer.model import Model, check_model
from steer.pairs import Pairs, Prompt, as_pairs
from steer.scope import ALL, Scope
from steer.search.checked import ByDomain
from steer.search.limits import Limits
from steer.search.result import Selection
from steer.search.run import COEFFICIENTS as VALUES
from steer.search.run import select_coefficients
from steer.search.space import Axes
from steer.search.strategy import Strategy
from steer.search.tried import Objective, worst_accuracy
from steer.vector import Vector

__all__ = ["select"]


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
    vectors: Composition | Part | Composed,
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
    vectors: Candidates | Steerable,
    held_out: Pairs | ByDomain,
    **options: Any,
) -> Choice | Selection:
    """Choose on held-out pairs where and how strongly to steer, and report on pairs never seen.

    Given one vector or alternatives to choose from, and pairs: the vector, its layer and its
    coefficient (`select_one`). Given a composition or an earlier choice, or pairs by domain: a
    coefficient for each domain, under limits on side effects
    (`steer.search.select_coefficients`). A mapping is of alternatives, which must not have names
    of domains of the pairs.

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
    check_model(model)
    held_out = held_out if isinstance(held_out, Mapping) else as_pairs(held_out)
    whole = isinstance(vectors, Composition | Part | Composed)
    several = whole or isinstance(held_out, Mapping)
    _check_options(options, several)
    if several:
        many = cast(Steerable, vectors)
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
