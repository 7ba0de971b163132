"""What each vector does to each domain: the matrix of steered against affected."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from steer.composition import (
    CoefficientsLike,
    Composition,
    Steerable,
    as_composition,
    coefficient_rows,
)
from steer.engine.base import unsteered
from steer.errors import SelectionError
from steer.evaluate.judge.protocol import Judge
from steer.evaluate.judge.result import Judged, check_wanted, judge_answers
from steer.evaluate.preference import Reduce
from steer.measure.margins import preferences
from steer.measure.matrix import Cell, OffTarget, each_domain
from steer.measure.measures import pairs_by_domain
from steer.model import Model, check_model
from steer.pairs import Pairs


def off_target(
    model: Model,
    what: Steerable,
    data: Pairs | Mapping[str, Pairs],
    coefficients: CoefficientsLike | None = None,
    *,
    judge: Judge | Mapping[str, Judge] | None = None,
    wanted: str | Mapping[str, str] | None = None,
    reduce: Reduce = "mean",
    max_tokens: int | None = None,
    progress: bool = True,
    **options: Any,
) -> OffTarget:
    """Measure what each vector, alone at its coefficient, changes on each domain.

    Args:
        model: The model; it must not be steered.
        what: A composition, vectors by domain, or one vector; a gate is kept.
        data: Pairs that name their domains, or pairs by domain. Domains without a vector are
            measured on too.
        coefficients: One for all, or by domain, dimensionless; by default the composition's own.
        judge: A judge of generated answers, or one for each domain of the data.
        wanted: The label wanted, or one for each domain; None for a judge that gives scores.
        reduce: Score answers by the mean or the sum of their tokens' log-probabilities.
        max_tokens: Tokens of one scoring forward; by default what is measured to be fastest.
        progress: Whether to show a progress bar.
        **options: As for `model.generate`, for judged answers.

    Returns:
        The matrix, with intervals.

    Raises:
        SteeringError: The model is being steered.
        SelectionError: A domain without pairs or without judge, coefficients by row, or a label
            wanted that the judge cannot give.
        CompositionError: An unknown domain, or a coefficient that cannot be used.
    """
    composition = as_composition(what)
    check_model(model)
    unsteered(model.engine, "off_target")
    parts = pairs_by_domain(data)
    own = _coefficients(composition, coefficients)
    settings = torch.cat([torch.zeros_like(own), torch.diag(own[0])])
    if judge is not None:
        judges = each_domain(judge, parts, "judge")
        labels = dict.fromkeys(parts) if wanted is None else each_domain(wanted, parts, "label")
        for name, part in parts.items():
            check_wanted(judges[name], labels[name], len(part))
    found = preferences(model, composition, settings, parts, reduce, max_tokens, progress=progress)
    judged: list[dict[str, Judged]] = [{} for _ in settings]
    if judge is not None:
        judged = [
            _answered(model, composition, row, parts, judges, labels, options)
            for row in tqdm(settings, desc="answers", disable=None if progress else True)
        ]
    named = dict(zip(composition.domains, own[0].tolist(), strict=True))
    return OffTarget(
        named, found[0], _cells(named, found[1:]), judged[0], _cells(named, judged[1:])
    )


def _coefficients(
    composition: Composition, given: CoefficientsLike | None
) -> Float[Tensor, "row domain"]:
    rows = composition.coefficients
    if given is not None:
        rows = coefficient_rows(given, composition.domains)[0]
    if len(rows) != 1:
        raise SelectionError(
            "each vector is measured at one coefficient",
            found=f"{len(rows)} rows of coefficients",
            expected="one",
            do="pass a number, or one by domain",
        )
    return rows


def _answered(
    model: Model,
    composition: Composition,
    setting: Float[Tensor, " domain"],
    parts: Mapping[str, Pairs],
    judges: Mapping[str, Judge],
    wanted: Mapping[str, str | None],
    options: Mapping[str, Any],
) -> dict[str, Judged]:
    """Return what the judges find about answers under one setting."""
    asked = [pair.prompt for part in parts.values() for pair in part]
    with model.steered(composition, setting):
        answers = model.generate(asked, **options)
    found, start = {}, 0
    for name, part in parts.items():
        texts = answers[start : start + len(part)]
        start += len(part)
        prompts = [pair.prompt for pair in part]
        found[name] = judge_answers(judges[name], prompts, texts, wanted=wanted[name])
    return found


def _cells(steered: Mapping[str, float], found: list[dict[str, Any]]) -> dict[Cell, Any]:
    return {
        (name, affected): result
        for name, row in zip(steered, found, strict=True)
        for affected, result in row.items()
    }
