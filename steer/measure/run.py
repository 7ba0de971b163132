"""Many settings of the knobs on the same data, saved as it goes."""

import itertools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm.auto import tqdm

from steer.composition import Composition, Steerable, as_composition
from steer.engine.base import unsteered
from steer.engine.branches.trial import fastest_tokens
from steer.errors import SelectionError
from steer.evaluate.reduce import Reduce, check_reduce, reduced
from steer.files import PathLike
from steer.measure.grid import Grid, Setting, composed, settings_of
from steer.measure.identity import parts_of
from steer.measure.journal import Journal, Measured
from steer.measure.likelihood import Scorer
from steer.measure.measures import (
    Answers,
    Asked,
    Data,
    Likelihood,
    Measure,
    asked,
    by_domain,
    checked,
)
from steer.measure.request import check_named, fingerprint, measure_name
from steer.measure.result import Sweep
from steer.model import Model, check_model
from steer.pairs import Pairs
from steer.scope import Scope

_Place = tuple[int | None, str | None]  # layer and scope
_TOGETHER = 64  # settings that share the blocks below, and that are saved together


def sweep(
    model: Model,
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

    Likelihoods are computed for many settings at once (`steer.measure.likelihood`). With a file,
    finished settings are saved as it goes, and a repeated call goes on from there. Where a
    likelihood or a number of a function is not finite the table has NaN; such a setting is never
    the best. What a function raises ends the sweep.

    Args:
        model: The model; it must not be steered.
        what: A vector, vectors by domain, or a composition; a gate is kept.
        data: Pairs; answers by level (`Answers`); or either by domain. Every setting is measured
            on every domain.
        grid: Coefficients to try, dimensionless: numbers for every domain, or by domain, of which
            all combinations are taken; or whole settings, as mappings or as `[setting domain]`.
        measure: `preference` (pairs), `levels` (answers), or a function of the steered model and
            the data of one domain that returns numbers by name.
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
            a file that is damaged, in use or of another sweep, or one to save a measure to that
            has no name of its own (a lambda, a partial).
        CompositionError: Domains, coefficients or scopes that cannot be used.
        FitError: A vector does not fit this model.
    """
    check_model(model)
    unsteered(model.engine, "sweep")
    check_reduce(reduce)
    _check_tokens(max_tokens)
    composition = as_composition(what)
    scopes = [scope] if isinstance(scope, Scope | str) else scope
    settings = settings_of(composition, grid, layers, scopes)
    parts = by_domain(data)
    work = _Work(model, composition, settings, parts, measure, reduce)
    mark = fingerprint(model, composition, settings, parts, measure, reduce)
    journal = None if save is None else work.journal(save, mark, max_tokens)
    found: dict[int, Measured] = {} if journal is None else dict(journal.measured)
    tokens = max_tokens if journal is None else journal.notes["max_tokens"]
    ways: dict[str, None] = {}
    bar = tqdm(total=len(settings), initial=len(found), desc="sweep", disable=not progress)
    with journal or nullcontext(), bar:
        for group in work.groups(found):
            done, way = work.measured(group, tokens, bar.update)
            found |= done
            ways[way] = None
            if journal is not None:
                journal.add(done)
            bar.update(len(found) - bar.n)
    ordered = tuple(found[k] for k in range(len(settings)))
    name = measure_name(measure)
    how = "; ".join(ways) or "resumed"
    return Sweep(composition.domains, settings, ordered, name, reduce, how, mark)


def _check_tokens(max_tokens: int | None) -> None:
    whole = isinstance(max_tokens, int) and not isinstance(max_tokens, bool)
    if max_tokens is not None and not (whole and max_tokens >= 1):
        raise SelectionError(
            "a forward cannot have this many tokens",
            found=f"max_tokens {max_tokens!r}",
            expected="a whole number, at least 1",
            do="leave max_tokens out",
        )


@dataclass(frozen=True, eq=False, slots=True)
class _Work:
    """What is to be measured.

    Args:
        model: The model.
        composition: What is swept.
        settings: Every setting.
        parts: The data of each domain.
        measure: What is measured.
        reduce: How scores are made of tokens.
        scorers: What scores at the layer and scope at hand, with what it knows.
    """

    model: Model
    composition: Composition
    settings: Sequence[Setting]
    parts: Mapping[str, Pairs | Answers]
    measure: Measure
    reduce: Reduce
    scorers: dict[_Place, Scorer] = field(default_factory=dict)

    def journal(self, path: PathLike, mark: str, max_tokens: int | None) -> Journal:
        """Open the file of the sweep; the size of its forwards is kept, for equal numbers."""
        check_named(self.measure)
        if max_tokens is None and isinstance(self.measure, str):
            max_tokens = fastest_tokens(self.model.architecture)
        parts = {} if isinstance(self.measure, str) else parts_of(self.measure)
        notes = {"measure": measure_name(self.measure), "max_tokens": max_tokens, "parts": parts}
        return Journal(path, mark, len(self.settings), notes)

    def groups(self, found: Container[int]) -> Iterator[list[int]]:
        """Yield the settings that are missing, those together that are measured together."""
        size = _TOGETHER if isinstance(self.measure, str) else 1
        missing = [k for k in range(len(self.settings)) if k not in found]
        for _, same in itertools.groupby(missing, key=self._place):
            group = list(same)
            yield from (group[k : k + size] for k in range(0, len(group), size))

    def measured(
        self, group: Sequence[int], max_tokens: int | None, step: Callable[[int], object]
    ) -> tuple[dict[int, Measured], str]:
        """Return what is measured at some settings of one layer and scope, and how."""
        rows = [self.settings[k].coefficients for k in group]
        place = self._place(group[0])
        if isinstance(self.measure, str):
            new, way = self._likelihood(place, rows, self.measure, max_tokens, step)
        else:
            composition = composed(self.composition, *place)
            new = [self._function(composition, row, self.measure) for row in rows]
            way = "one by one"
        return dict(zip(group, new, strict=True)), way

    def _place(self, k: int) -> _Place:
        return self.settings[k].layer, self.settings[k].scope

    def _scorer(self, place: _Place, texts: Mapping[str, Asked], max_tokens: int | None) -> Scorer:
        """Return what scores the settings of one layer and scope, kept from group to group."""
        if place not in self.scorers:
            same = [s for k, s in enumerate(self.settings) if self._place(k) == place]
            self.scorers.clear()  # places come one after the other
            self.scorers[place] = Scorer(
                self.model,
                composed(self.composition, *place),
                [prompt for a in texts.values() for prompt in a.prompts],
                [response for a in texts.values() for response in a.responses],
                max_tokens=max_tokens,
                foreseen=torch.tensor([s.coefficients for s in same], dtype=torch.float64),
            )
        return self.scorers[place]

    def _likelihood(
        self,
        place: _Place,
        rows: Sequence[tuple[float, ...]],
        measure: Likelihood,
        max_tokens: int | None,
        step: Callable[[int], object],
    ) -> tuple[list[Measured], str]:
        texts = {on: asked(part, measure) for on, part in self.parts.items()}
        each = sum(len(a.responses) for a in texts.values())
        scored = shown = 0

        def done(n: int) -> None:
            nonlocal scored, shown
            scored += n
            whole = min(scored // each, len(rows) - 1)  # the last one when all are saved
            step(whole - shown)
            shown = whole

        found = self._scorer(place, texts, max_tokens)(
            torch.tensor(rows, dtype=torch.float64), done
        )
        scores = reduced(found.logprobs, self.reduce, finite=False)
        sizes = [len(a.responses) for a in texts.values()]
        new: list[Measured] = []
        for row in scores:
            own = zip(texts.items(), row.split(sizes), strict=True)
            new.append({on: a.numbers(s, measure, self.reduce) for (on, a), s in own})
        return new, found.way

    def _function(
        self,
        composition: Composition,
        row: tuple[float, ...],
        measure: Callable[[Model, Any], Mapping[str, float]],
    ) -> Measured:
        named = zip(composition.domains, row, strict=True)
        at = ", ".join(f"{domain}={c:g}" for domain, c in named)
        with self.model.steered(composition, torch.tensor(row, dtype=torch.float64)):
            return {
                on: checked(measure(self.model, part), f"at {at} on {on!r}")
                for on, part in self.parts.items()
            }
