"""Scores of the answers of every domain under several settings, all computed together."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from steer.algebra import CoefficientsLike, Composition
from steer.engine import unsteered
from steer.errors import SelectionError
from steer.measure._data import Answers, Measured, Numbers
from steer.measure._likelihood import Done, Scorer
from steer.measure._preference import LevelPreference, Preference, warn_of_alike
from steer.measure._reduce import Reduce, check_reduce, reduced
from steer.model import Model, check_model
from steer.pairs import Pairs, Prompt


class DataScorer:
    """Scores the answers of all domains in one `Scorer`, under settings that come a few at a time.

    `step` of a call is told of whole settings as work goes on, at most of as many as there are.
    """

    def __init__(
        self,
        model: Model,
        composition: Composition,
        data: Mapping[str, Pairs | Answers],
        reduce: Reduce,
        measure: str = "preference",
        max_tokens: int | None = None,
        foreseen: Float[Tensor, "setting domain"] | None = None,
    ) -> None:
        texts = {on: answers_of(part, measure) for on, part in data.items()}
        self.way, self._measure, self._reduce = "", measure, reduce
        self._kinds = {on: tuple(kinds) for on, (_, kinds) in texts.items()}
        self._sizes = [len(prompts) * len(kinds) for prompts, kinds in texts.values()]
        asked = [prompt for prompts, kinds in texts.values() for prompt in [*prompts] * len(kinds)]
        given = [text for _, kinds in texts.values() for each in kinds.values() for text in each]
        options = {"max_tokens": max_tokens, "foreseen": foreseen}
        self._scorer = Scorer(model, composition, asked, given, **options)  # type: ignore[arg-type]

    def __call__(
        self, settings: CoefficientsLike, step: Done = lambda n: None, *, finite: bool = False
    ) -> dict[str, Float[Tensor, "setting kind item"]]:
        """Return the score of each answer by domain, in nats.

        Raises:
            SelectionError: Scores must be `finite`, and one is not.
        """
        left = 0

        def done(n: int) -> None:
            nonlocal left
            whole, left = divmod(left + n, sum(self._sizes))
            step(whole)

        found = self._scorer(settings, done)
        self.way = found.way
        scores = reduced(found.logprobs, self._reduce, finite=finite).split(self._sizes, dim=1)
        named = zip(self._kinds.items(), scores, strict=True)
        return {on: own.unflatten(1, (len(kinds), -1)) for (on, kinds), own in named}

    def numbers(self, scores: Mapping[str, Tensor], setting: int) -> Measured:
        """Return what the scores of a call say at one of its settings."""
        return {on: self._numbers(self._kinds[on], t[setting]) for on, t in scores.items()}

    def _numbers(self, kinds: tuple[str, ...], table: Float[Tensor, "kind item"]) -> Numbers:
        """Return what scores say of one domain; NaN but for `n` where one is not finite."""
        found: dict[str, float] = {"n": table.shape[1]}
        if self._measure == "preference":
            both = Preference(table[0], table[1], self._reduce)
            low, high = both.interval
            found |= {"accuracy": both.value, "low": low, "high": high, "margin": both.margin}
            found["likelihood"] = float(both.chosen.mean())
        else:
            levels = LevelPreference(table.T, kinds, self._reduce)
            for kind in kinds:
                share = levels.accuracy(kind)
                low, high = share.interval
                found |= {kind: share.value, f"{kind}.low": low, f"{kind}.high": high}
        if bool(torch.isfinite(table).all()):
            return found
        return {name: x if name == "n" else math.nan for name, x in found.items()}


def answers_of(
    part: Pairs | Answers, measure: str
) -> tuple[Sequence[Prompt], Mapping[str, Sequence[str]]]:
    """Return the prompts of one domain and the answers of each kind, one for each prompt.

    Raises:
        SelectionError: Data and measure do not go together.
    """
    if measure == "preference" and isinstance(part, Pairs):
        kinds = {"chosen": [p.chosen for p in part], "rejected": [p.rejected for p in part]}
        return [pair.prompt for pair in part], kinds
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
    composition: Composition,
    settings: Float[Tensor, "setting domain"],
    data: Mapping[str, Pairs],
    reduce: Reduce,
    max_tokens: int | None = None,
    *,
    progress: bool = False,
) -> list[dict[str, Preference]]:
    """Return for each setting the preference on each domain.

    Raises:
        SteeringError: The model is being steered.
        SelectionError: A score is not finite, or `reduce` is neither mean nor sum.
    """
    check_model(model)
    unsteered(model.engine, "measuring preferences")
    check_reduce(reduce)
    score = DataScorer(model, composition, data, reduce, max_tokens=max_tokens)
    off = None if progress else True
    with tqdm(total=len(settings), desc="likelihoods", disable=off) as bar:
        scores = score(settings, bar.update, finite=True)
    tied = {on: (t[:, 0] == t[:, 1]).all(dim=0).tolist() for on, t in scores.items()}
    pairs = ((p, same) for on, part in data.items() for p, same in zip(part, tied[on], strict=True))
    warn_of_alike(model, [pair for pair, same in pairs if same])
    return [
        {on: Preference(table[k, 0], table[k, 1], reduce) for on, table in scores.items()}
        for k in range(len(settings))
    ]
