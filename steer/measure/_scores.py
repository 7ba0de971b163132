"""Scores of answers under settings of one or several compositions, all together.

Settings of residual compositions without a gate become rows of one joined composition, so that the
unsteered part of the model runs once for all of them. Equal settings have equal scores: the
unsteered model is any composition at 0.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steer._progress import progress_bar
from steer.algebra import Composition, Residual
from steer.errors import SelectionError
from steer.measure._data import Answers, Measured, Numbers
from steer.measure._likelihood import Done, Requests, RequestScorer, Scorer
from steer.measure._preference import LevelPreference, Preference, sides, warn_of_alike
from steer.measure._reduce import Reduce, check_reduce, reduced
from steer.model import Model, check_model
from steer.pairs import Pairs, Prompt

Row = tuple[float, ...]
Knob = tuple[Composition, Row]  # a composition and its coefficients
Scores = dict[str, Float[Tensor, "setting kind item"]]  # by domain, in nats


def at(composition: Composition, times: float = 1.0) -> Knob:
    """Return a composition at a multiple of its own coefficients."""
    return composition, tuple((composition.coefficients[0] * times).tolist())


def joined(
    knobs: Sequence[Knob],
) -> Iterator[tuple[Composition, Float[Tensor, "setting domain"], list[int]]]:
    """Yield compositions with rows of coefficients, and which of the settings these are."""
    members: dict[int, list[int]] = {}
    for k, (composition, _) in enumerate(knobs):
        members.setdefault(id(composition), []).append(k)
    plain = [ks for ks in members.values() if joins(knobs[ks[0]][0])]
    if len(plain) > 1:
        blocks = [torch.tensor([knobs[k][1] for k in ks], dtype=torch.float64) for ks in plain]
        parts = {
            f"{n}.{name}": part
            for n, ks in enumerate(plain)
            for name, part in knobs[ks[0]][0].parts.items()
        }
        rows = torch.block_diag(*blocks)
        yield Composition(parts, rows, per_row=True), rows, [k for ks in plain for k in ks]
    for ks in members.values():
        if len(plain) < 2 or ks not in plain:
            rows = torch.tensor([knobs[k][1] for k in ks], dtype=torch.float64)
            yield knobs[ks[0]][0], rows, ks


def joins(composition: Composition) -> bool:
    """Return whether settings of a composition can be rows beside those of others."""
    residual = all(isinstance(site, Residual) for site in composition.sites)
    return residual and composition.gate is None


class DataScorer:
    """Scores the answers of every domain; settings that a gate makes equal are scored once.

    `step` is called with numbers of whole settings as work proceeds.
    """

    def __init__(
        self,
        model: Model | Requests,
        data: Mapping[str, Pairs | Answers],
        reduce: Reduce,
        measure: str = "preference",
        max_tokens: int | None = None,
        foreseen: Float[Tensor, "setting domain"] | None = None,
    ) -> None:
        if not isinstance(model, Requests):
            check_model(model, "measuring preferences")
        check_reduce(reduce)
        texts = {on: answers_of(part, measure) for on, part in data.items()}
        self.way, self._measure, self._reduce, self._model = "", measure, reduce, model
        self._kinds = {on: tuple(kinds) for on, (_, kinds) in texts.items()}
        self._sizes = [len(prompts) * len(kinds) for prompts, kinds in texts.values()]
        self._asked = [p for prompts, kinds in texts.values() for p in [*prompts] * len(kinds)]
        self._given = [t for _, kinds in texts.values() for each in kinds.values() for t in each]
        self._options: dict[str, Any] = {"max_tokens": max_tokens, "foreseen": foreseen}
        self._known: dict[int, tuple[Composition, Scorer | RequestScorer]] = {}

    def __call__(
        self, knobs: Sequence[Knob], step: Done = lambda n: None, *, finite: bool = False
    ) -> Scores:
        """Return the score of each answer; SelectionError if they must be finite and are not."""
        left = 0

        def done(n: int) -> None:
            nonlocal left
            whole, left = divmod(left + n, sum(self._sizes))
            step(whole)

        found = torch.empty(len(knobs), sum(self._sizes), dtype=torch.float64)
        for composition, rows, places in joined(knobs):
            own = composition is knobs[places[0]][0]
            scored = self._scorer(composition, keep=own)(rows, done)
            self.way = scored.way
            found[places] = reduced(scored.logprobs, self._reduce, finite=finite).to(found)
        named = zip(self._kinds.items(), found.split(self._sizes, dim=1), strict=True)
        return {on: own.unflatten(1, (len(kinds), -1)) for (on, kinds), own in named}

    def _scorer(self, composition: Composition, *, keep: bool) -> Scorer | RequestScorer:
        """Return the scorer of a composition; one that is kept knows its earlier calls."""
        if id(composition) in self._known:
            return self._known[id(composition)][1]
        model, texts = self._model, (self._asked, self._given)
        scorer = (
            RequestScorer(model.at(composition), *texts)
            if isinstance(model, Requests)
            else Scorer(model, composition, *texts, **self._options)
        )
        if keep:
            self._known[id(composition)] = composition, scorer
        return scorer

    def numbers(self, scores: Scores, setting: int) -> Measured:
        """Return what the scores of a call say at one of its settings."""
        return {on: self._numbers(self._kinds[on], t[setting]) for on, t in scores.items()}

    def _numbers(self, kinds: tuple[str, ...], table: Float[Tensor, "kind item"]) -> Numbers:
        if self._measure == "preference":
            return preference_numbers(table, self._reduce)
        levels = LevelPreference(table.T, kinds, self._reduce)
        found: dict[str, float] = {}
        for kind in kinds:
            share = levels.accuracy(kind)
            low, high = share.interval
            found |= {kind: share.value, f"{kind}.low": low, f"{kind}.high": high}
        return _finite(found, table)


def preference_numbers(table: Float[Tensor, "kind item"], reduce: Reduce) -> Numbers:
    """Return accuracy, margin and likelihood of scores of chosen and rejected answers."""
    both = Preference(table[0], table[1], reduce)
    low, high = both.interval
    found = {"accuracy": both.value, "low": low, "high": high, "margin": both.margin}
    return _finite({**found, "likelihood": float(both.chosen.mean())}, table)


def _finite(found: Numbers, table: Float[Tensor, "kind item"]) -> Numbers:
    """Return numbers with `n`; the others are NaN where a score is not finite."""
    finite = bool(torch.isfinite(table).all())
    return {"n": table.shape[1], **(found if finite else dict.fromkeys(found, math.nan))}


def answers_of(
    part: Pairs | Answers, measure: str
) -> tuple[Sequence[Prompt], Mapping[str, Sequence[str]]]:
    """Return the prompts of one domain and the answers of each kind, one for each prompt."""
    if measure == "preference" and isinstance(part, Pairs):
        return sides(part)
    if measure == "levels" and isinstance(part, Answers):
        return part.prompts, part.answers
    raise SelectionError(
        "data and measure do not go together",
        found=f"measure {measure!r} on {type(part).__name__}",
        expected="'preference' on Pairs, 'levels' on Answers, or a function",
        do="pass the other measure or other data",
    )


def preferences(
    model: Model,
    knobs: Sequence[Knob],
    data: Mapping[str, Pairs],
    reduce: Reduce,
    max_tokens: int | None = None,
    *,
    progress: bool = False,
) -> list[dict[str, Preference]]:
    """Return for each setting the preference on each domain; SelectionError if it is not finite."""
    score = DataScorer(model, data, reduce, max_tokens=max_tokens)
    with progress_bar(progress=progress, total=len(knobs), desc="likelihoods") as bar:
        scores = score(knobs, bar.update, finite=True)
    tied = {on: (t[:, 0] == t[:, 1]).all(dim=0).tolist() for on, t in scores.items()}
    pairs = ((p, same) for on, part in data.items() for p, same in zip(part, tied[on], strict=True))
    warn_of_alike(model, [pair for pair, same in pairs if same])
    return [
        {on: Preference(table[k, 0], table[k, 1], reduce) for on, table in scores.items()}
        for k in range(len(knobs))
    ]
