"""A report that measures what it shows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from steer.algebra import Composition, as_composition
from steer.algebra._composition import Steerable
from steer.engine import unsteered
from steer.errors import SelectionError
from steer.measure import NEUTRAL_PROMPTS, NeutralText, neutral_text, off_target
from steer.measure._reduce import Reduce
from steer.model import Model, check_model
from steer.pairs import Pairs, Prompt, as_pairs
from steer.report._page import Report
from steer.report._sections import Section, sections_of
from steer.report._setup import Setup
from steer.report._work import Work, pairs_of
from steer.selection import Selection
from steer.selection._checked import named

_SHOTS = 2  # pairs of a domain that the prompted baseline shows


def report(
    model: Model,
    what: Steerable,
    data: Pairs | Mapping[str, Pairs],
    *,
    train: Pairs | None = None,
    instruction: str | None = None,
    coefficients: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    kl_budget: float | None = None,
    neutral: Sequence[Prompt] | NeutralText = NEUTRAL_PROMPTS,
    tuned: Model | None = None,
    examples: int = 3,
    reduce: Reduce = "mean",
    seed: int = 0,
    title: str = "Steering report",
    progress: bool = True,
    **options: Any,
) -> Report:
    """Measure a steered model and put everything on one page.

    Dose-response of each domain's coefficient on each domain; side effects; the effect of each
    vector on each domain; baselines; reliability of residual vectors; answers side by side.

    Args:
        model: The model; it must not be steered.
        what: What `select` returned, which is shown as well; or a composition at its
            coefficients, a vector, or vectors by domain.
        data: Pairs that name their domains, or pairs by domain, that nothing was made from or
            chosen on. Domains without a vector are measured on too.
        train: The pairs that the vectors were made from: reliability is that of these, and two of
            each domain are shown by the prompted baseline. Without them reliability is that of
            `data`, and the first two pairs of each domain are shown and not measured on.
        instruction: System message of the prompted baseline, instead of pairs.
        coefficients: Values to try for every domain, or by domain, dimensionless; by default nine
            from −1 to 1, or as far as the composition's own.
        kl_budget: Limit to draw, nats per response token; by default that of the choice.
        neutral: Prompts of no domain, or neutral text prepared by `neutral_text`, for KL.
        tuned: A preference-tuned model to compare with.
        examples: Prompts of each domain whose answers are shown.
        reduce: Score answers by the mean or the sum of their tokens' log-probabilities.
        seed: Of the random directions: this one and the next two.
        title: The report's heading.
        progress: Whether to show a progress bar.
        **options: As for `model.generate`, for the answers shown.

    Returns:
        The report.

    Raises:
        SteeringError: The model is being steered.
        SelectionError: No pairs of a domain that has a vector, or too few.
        CompositionError: Coefficients that cannot be used.
        FitError: A vector does not fit this model.
    """
    check_model(model)
    unsteered(model.engine, "report")
    if examples < 0:
        raise SelectionError(
            "a report cannot show fewer than no examples",
            found=f"examples={examples}",
            expected="0 or more of each domain",
            do="leave it out, or pass 0 for none",
        )
    chosen = what if isinstance(what, Selection) else None
    composition = as_composition(what)
    parts = named(composition, data)
    train = None if train is None else as_pairs(train)
    if instruction is None and train is None:
        shots = {d: part[:_SHOTS] for d, part in parts.items()}
        parts = {d: part[_SHOTS:] for d, part in parts.items()}
    else:
        shots = {d: pairs_of(train, d)[:_SHOTS] for d in parts}
    own = _checked(composition, parts)
    text = neutral if isinstance(neutral, NeutralText) else neutral_text(model, neutral)
    work = Work(model, composition, own, parts, shots, train, text, coefficients, reduce, seed)
    steps: list[tuple[str, Callable[[], object]]] = [
        ("dose-response", lambda: work.swept),
        ("side effects", lambda: work.costs(kl_budget)),
        (
            "interference",
            lambda: off_target(model, composition, parts, own[0], reduce=reduce, progress=False),
        ),
        ("baselines", lambda: work.baselines(instruction, tuned)),
        ("reliability", work.reliability),
        ("examples", lambda: work.examples(examples, options)),
    ]
    if chosen is not None:
        steps[1] = ("choice", lambda: chosen)
    found: list[Section] = []
    with tqdm(steps, disable=not progress) as bar:
        for name, measure in bar:
            bar.set_description(name)
            result = measure()
            if result:
                found += sections_of(result)
    facts = {"score": f"{reduce} log-probability", "seed": seed, "neutral texts": len(text.prompts)}
    used = dict(parts) | ({"train": train} if train else {})
    setup = Setup(model.info, composition, used, facts | options)
    return Report(title, (*found, *sections_of(setup)))


def _checked(composition: Composition, parts: Mapping[str, Pairs]) -> Float[Tensor, "row domain"]:
    """Return the one row of coefficients that is reported on."""
    rows = composition.coefficients
    empty = [name for name, part in parts.items() if not len(part)]
    if len(rows) != 1 or empty or not set(composition.domains) & set(parts):
        raise SelectionError(
            "there is nothing to report on",
            found=f"{len(rows)} rows of coefficients, vectors of {list(composition.domains)}, "
            f"pairs of {list(parts)}, none left of {empty}",
            expected="one row, and pairs of a domain that has a vector: three of each, or "
            "pass train or an instruction",
            do="name pairs and vectors alike, and pass more pairs",
        )
    return rows
