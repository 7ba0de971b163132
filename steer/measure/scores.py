"""Scores of the answers of every domain under several settings, all computed together."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from steer.composition import CoefficientsLike, Composition
from steer.engine.base import unsteered
from steer.evaluate.alike import warn_of_alike
from steer.evaluate.preference import Preference
from steer.evaluate.reduce import Reduce, check_reduce, reduced
from steer.measure.data import Answers, Measured, asked
from steer.measure.likelihood import Done, Scorer
from steer.model import Model, check_model
from steer.pairs import Pairs


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
        self.texts = {on: asked(part, measure) for on, part in data.items()}
        self.way, self._measure, self._reduce = "", measure, reduce
        prompts = [prompt for part in self.texts.values() for prompt in part.prompts]
        self._responses = [answer for part in self.texts.values() for answer in part.responses]
        self._scorer = Scorer(
            model,
            composition,
            prompts,
            self._responses,
            max_tokens=max_tokens,
            foreseen=foreseen,
        )

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
            whole, left = divmod(left + n, len(self._responses))
            step(whole)

        found = self._scorer(settings, done)
        self.way = found.way
        scores = reduced(found.logprobs, self._reduce, finite=finite)
        parts = scores.split([len(part.responses) for part in self.texts.values()], dim=1)
        named = zip(self.texts.items(), parts, strict=True)
        return {on: own.unflatten(1, (len(part.kinds), -1)) for (on, part), own in named}

    def numbers(self, scores: Mapping[str, Tensor], setting: int) -> Measured:
        """Return what the scores of a call say at one of its settings."""
        return {
            on: self.texts[on].numbers(table[setting], self._measure, self._reduce)
            for on, table in scores.items()
        }


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
