"""Many settings of the knobs on the same data, saved as it goes."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import integer
from steer._progress import progress_bar
from steer.algebra import Composition, Scope, as_composition
from steer.algebra._composition import Steerable
from steer.engine._branches.trial import fastest_tokens
from steer.errors import CapabilityError, SelectionError
from steer.measure._data import Answers, Data, Measure, Measured, Numbers, by_domain
from steer.measure._grid import Grid, composed, settings_of
from steer.measure._likelihood import Done, Requests
from steer.measure._reduce import Reduce, check_reduce
from steer.measure._request import fingerprint, measure_name
from steer.measure._result import Sweep
from steer.measure._saved import Saved
from steer.measure._scores import DataScorer, answers_of
from steer.model import Model, check_model
from steer.pairs import Pairs
from steer.store import PathLike

_Steps = Iterator[tuple[dict[int, Measured], str]]
_TOGETHER = 64  # settings that share the blocks below, and that are saved together


def sweep(
    model: Model | Requests,
    what: Steerable,
    data: Data,
    grid: Grid,
    *,
    measure: Measure = "preference",
    layers: Sequence[int] | None = None,
    scope: Scope | str | Sequence[Scope | str] | None = None,
    reduce: Reduce = "mean",
    save: PathLike | None = None,
    max_tokens: int | None = None,
    progress: bool = True,
) -> Sweep:
    """Measure a model under every setting of a grid: layers × scopes × coefficients of the domains.

    Likelihoods are computed for many settings at once. With a file, finished settings are saved
    as it goes, and a repeated call goes on from there. Where a likelihood or a number of a
    function is not finite the table has NaN; such a setting is never the best.

    Args:
        model: The model; it must not be steered. Or a `steer.serving.VLLM` with the vectors of
            `what`, which takes neither layers, a function, `save` nor `max_tokens`.
        what: A vector, vectors by domain, or a composition; a gate is kept.
        data: Pairs; answers by level (`Answers`); or either by domain. Every setting is measured
            on every domain.
        grid: Coefficients to try, dimensionless: numbers for every domain, or by domain, of which
            all combinations are taken; or whole settings, as mappings or as `[setting domain]`.
        measure: `preference` (pairs), `levels` (answers), or a function of the steered model and
            the data of one domain that returns numbers by name; what it raises ends the sweep.
        layers: Layers to try one at a time; by default every vector acts at all of its sites.
        scope: One scope or several to try, instead of the composition's own.
        reduce: Score answers by the mean or the sum of their tokens' log-probabilities.
        save: A file that the sweep is saved to and resumed from, by one process at a time.
            Likelihoods are saved for 64 settings at a time, a function's numbers one by one.
        max_tokens: Tokens of one forward; by default what is measured to be fastest here. A
            resumed sweep keeps that of its file.
        progress: Whether to show a progress bar.

    Returns:
        The table of what was measured.

    Raises:
        SteeringError: The model is being steered.
        SelectionError: Nothing to sweep or to measure on, data that do not go with the measure,
            or a file that is damaged, in use or of another sweep.
        AlgebraError: A vector has nothing at a layer.
        CompositionError: Domains, coefficients or scopes that cannot be used.
        FitError: A vector does not fit this model.
        CapabilityError: vLLM is asked for what it does not do.
    """
    if isinstance(model, Requests):
        _check_requests(layers=layers, measure=measure, save=save, max_tokens=max_tokens)
    else:
        check_model(model, "sweep")
    check_reduce(reduce)
    if max_tokens is not None:
        max_tokens = integer("max_tokens", max_tokens, least=1, do="leave max_tokens out")
    composition, parts = as_composition(what), by_domain(data)
    scopes = [scope] if isinstance(scope, Scope | str) else scope
    settings = settings_of(composition, grid, layers, scopes)
    if isinstance(measure, str):
        for part in parts.values():
            answers_of(part, measure)  # refuses what it does not go with, before a file is made
    named = model.model_id if isinstance(model, Requests) else model
    mark = fingerprint(named, composition, settings, parts, measure, reduce)
    rows = torch.tensor([s.coefficients for s in settings], dtype=torch.float64)
    places = [(s.layer, s.scope) for s in settings]
    measured: dict[int, Measured] = {}
    ways: dict[str, None] = {}
    with ExitStack() as stack:
        saved = None
        if save is not None:  # last bits depend on the size of forwards, which the file keeps
            if isinstance(measure, str) and isinstance(model, Model):
                max_tokens = max_tokens or fastest_tokens(model.architecture)
            saved = stack.enter_context(closing(Saved(save, mark, measure, max_tokens)))
            measured, max_tokens = dict(saved.measured), saved.head["max_tokens"]
        bar = progress_bar(
            progress=progress, total=len(settings), initial=len(measured), desc="sweep"
        )
        stack.enter_context(bar)
        for place in dict.fromkeys(places):
            own = [k for k, other in enumerate(places) if other == place]
            missing = [k for k in own if k not in measured]
            if not missing:
                continue
            at = composed(composition, *place)
            if isinstance(measure, str):
                score = DataScorer(model, parts, reduce, measure, max_tokens, rows[own])
                steps = _likelihoods(score, at, rows, missing, bar.update)
            else:
                steps = _function(cast(Model, model), at, rows, missing, parts, measure)
            for new, way in steps:
                measured |= new
                ways[way] = None
                if saved is not None:
                    saved.add(new)
                bar.update(len(measured) - bar.n)
    ordered, way = tuple(measured[k] for k in range(len(settings))), "; ".join(ways) or "resumed"
    return Sweep(composition.domains, settings, ordered, measure_name(measure), reduce, way, mark)


def _check_requests(**given: object) -> None:
    """Refuse what a sweep cannot do where settings are requests."""
    unable = [name for name, value in given.items() if value is not None]
    if isinstance(given["measure"], str):
        unable.remove("measure")
    if unable:
        raise CapabilityError(
            "a sweep through vLLM does not do this",
            found=", ".join(unable),
            expected="likelihoods of all sites of each vector, in one call",
            do="leave these out, or sweep a steer.Model",
        )


def _likelihoods(
    score: DataScorer, at: Composition, rows: Tensor, missing: Sequence[int], step: Done
) -> _Steps:
    """Yield what likelihoods say at some settings together, and how they were computed."""
    for k in range(0, len(missing), _TOGETHER):
        some = missing[k : k + _TOGETHER]
        scores = score([(at, tuple(row)) for row in rows[some].tolist()], step)
        yield {k: score.numbers(scores, i) for i, k in enumerate(some)}, score.way


def _function(
    model: Model,
    composition: Composition,
    rows: Float[Tensor, "setting domain"],
    missing: Sequence[int],
    parts: Mapping[str, Pairs | Answers],
    measure: Callable[[Model, Any], Numbers],
) -> _Steps:
    """Yield what a function returns at one setting after the other."""
    for k in missing:
        named = zip(composition.domains, rows[k].tolist(), strict=True)
        at = ", ".join(f"{domain}={c:g}" for domain, c in named)
        with model.steered(composition, rows[k]):
            numbers = {
                on: _plain_numbers(measure(model, part), f"at {at} on {on!r}")
                for on, part in parts.items()
            }
        yield {k: numbers}, "one by one"


def _plain_numbers(found: Mapping[str, float], where: str) -> dict[str, float]:
    """Return what a function returned as plain numbers, NaN where one is not finite."""
    try:
        numbers = {name: _plain(value) for name, value in found.items() if name.encode() or True}
    except (AttributeError, TypeError, ValueError):
        numbers = {}
    if not numbers:
        raise SelectionError(
            f"a measure returned what cannot be kept, {where}",
            found=repr(found)[:200],
            expected="at least one number by name, and names that UTF-8 can hold",
            do="return for instance {'accuracy': 0.75}",
        )
    return numbers


def _plain(given: Any) -> float:
    """Return a number as it is kept: whole if it was, NaN if it is not finite or too large."""
    try:
        value = float(given)
    except OverflowError:
        return math.nan
    exact = isinstance(given, int) and abs(value) < 2**53
    return int(given) if exact else value if math.isfinite(value) else math.nan
