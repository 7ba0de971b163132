"""Measuring settings: preference on the pairs of every domain, and side effects."""

import math
from collections.abc import Mapping, Sequence

import torch

from steer.composition import Composition
from steer.engine.base import unsteered
from steer.errors import SelectionError
from steer.evaluate.kl import NeutralText
from steer.evaluate.reduce import Reduce, check_reduce, reduced
from steer.model import Model
from steer.pairs import Pairs
from steer.search.effects import SideEffects
from steer.search.tried import Numbers, Objective, Tried
from steer.sweeps.likelihood import Scorer
from steer.sweeps.measures import asked


class Evaluator:
    """Measures settings of one composition, many at once.

    Args:
        model: The model; it must not be steered.
        composition: What is searched.
        pairs: The pairs of each domain.
        moved: The domains that are asked to move.
        objective: What is to be large, of the numbers of those.
        text: Neutral text; None to measure no side effects there.
        reduce: Score answers by the mean or the sum of their tokens' log-probabilities.

    Raises:
        SteeringError: The model is being steered.
    """

    def __init__(
        self,
        model: Model,
        composition: Composition,
        pairs: Mapping[str, Pairs],
        moved: Sequence[str],
        objective: Objective,
        text: NeutralText | None,
        reduce: Reduce,
    ) -> None:
        unsteered(model.engine, "measuring settings")
        check_reduce(reduce)
        self._texts = {name: asked(part, "preference") for name, part in pairs.items()}
        self._moved, self._objective, self._reduce = tuple(moved), objective, reduce
        self._effects = None if text is None else SideEffects(model, composition, text)
        self._scorer = Scorer(
            model,
            composition,
            [prompt for a in self._texts.values() for prompt in a.prompts],
            [response for a in self._texts.values() for response in a.responses],
        )
        zero = (0.0,) * len(composition.domains)
        self.unsteered = self._measured([zero])[0]
        if not _finite(self.unsteered):
            raise SelectionError(
                "the unsteered model's scores of these pairs are not finite",
                found=repr(self.unsteered)[:200],
                expected="a finite log-probability of every token",
                do="look at the model's logits; load it in bfloat16 or float32",
            )

    def __call__(self, settings: Sequence[tuple[float, ...]]) -> list[Tried]:
        """Return what is measured at each setting.

        Args:
            settings: Coefficients, dimensionless.
        """
        rows = torch.tensor(settings, dtype=torch.float64)
        effects: Sequence[tuple[float | None, float | None]] = [(None, None)] * len(settings)
        if self._effects is not None:
            effects = self._effects(rows)
        both = zip(settings, self._measured(settings), effects, strict=True)
        return [self._tried(c, measured, *effect) for c, measured, effect in both]

    def _measured(self, settings: Sequence[tuple[float, ...]]) -> list[dict[str, Numbers]]:
        rows = torch.tensor(settings, dtype=torch.float64)
        scores = reduced(self._scorer(rows).logprobs, self._reduce, finite=False)
        sizes = [len(a.responses) for a in self._texts.values()]
        return [
            {
                name: a.numbers(s, "preference", self._reduce)
                for (name, a), s in zip(self._texts.items(), row.split(sizes), strict=True)
            }
            for row in scores
        ]

    def _tried(
        self,
        coefficients: tuple[float, ...],
        measured: Mapping[str, Numbers],
        kl: float | None,
        perplexity: float | None,
    ) -> Tried:
        own = {name: measured[name] for name in self._moved}
        drops = [
            self.unsteered[name]["accuracy"] - numbers["accuracy"]
            for name, numbers in measured.items()
            if name not in own
        ]
        return Tried(
            coefficients=coefficients,
            objective=self._reached(own) if _finite(measured) else math.nan,
            measured=measured,
            mean=sum(numbers["accuracy"] for numbers in own.values()) / len(own),
            off_target=max(0.0, *drops) if drops else None,
            kl=kl,
            perplexity=perplexity,
        )

    def _reached(self, own: Mapping[str, Numbers]) -> float:
        found = self._objective(own)
        try:
            return float(found)
        except (TypeError, ValueError) as error:
            raise SelectionError(
                "the objective returned no number",
                found=repr(found)[:200],
                expected="a number that is to be large; NaN where a setting is not to be chosen",
                do="return for instance min(n['margin'] for n in measured.values())",
            ) from error


def _finite(measured: Mapping[str, Numbers]) -> bool:
    return all(math.isfinite(x) for numbers in measured.values() for x in numbers.values())
