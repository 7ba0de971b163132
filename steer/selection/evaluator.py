"""Measuring settings of candidates: preference on the pairs of every domain, and side effects."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steer.engine.base import unsteered
from steer.errors import SelectionError
from steer.evaluate.kl import NeutralText
from steer.evaluate.reduce import Reduce, check_reduce, reduced
from steer.measure.data import asked
from steer.measure.likelihood import Scorer
from steer.model import Model
from steer.pairs import Pairs
from steer.selection.candidates import Candidate
from steer.selection.effects import SideEffects
from steer.selection.setting import Numbers, Objective, SettingResult

Row = tuple[float, ...]


class Evaluator:
    """Measures settings, many of one candidate at once.

    Args:
        model: The model; it must not be steered.
        pairs: The pairs of each domain.
        moved: The domains that are asked to move.
        objective: What is to be large, of the numbers of those.
        text: Neutral text; None to measure no side effects there.
        reduce: Score answers by the mean or the sum of their tokens' log-probabilities.
        both_ways: Whether the negated setting is measured too, on swapped pairs; accuracy, margin
            and likelihood are then means over both ends, and KL the larger one.

    Raises:
        SteeringError: The model is being steered.
    """

    def __init__(
        self,
        model: Model,
        pairs: Mapping[str, Pairs],
        moved: Sequence[str],
        objective: Objective,
        text: NeutralText | None,
        reduce: Reduce,
        *,
        both_ways: bool = False,
    ) -> None:
        unsteered(model.engine, "measuring settings")
        check_reduce(reduce)
        self.model, self.pairs, self.moved = model, dict(pairs), tuple(moved)
        self.objective, self.reduce, self.both_ways = objective, reduce, both_ways
        self.effects = None if text is None else SideEffects(model, text)
        self._texts = {name: asked(part, "preference") for name, part in pairs.items()}
        self._prompts = [prompt for a in self._texts.values() for prompt in a.prompts]
        self._responses = [answer for a in self._texts.values() for answer in a.responses]
        self._scorers: dict[int, Scorer] = {}
        self._unsteered: Mapping[str, Numbers] | None = None

    def __call__(self, candidate: Candidate, settings: Sequence[Row]) -> list[SettingResult]:
        """Return what is measured at each setting of a candidate.

        Args:
            candidate: What is steered with.
            settings: Coefficients, dimensionless.
        """
        return self.scored(candidate, settings)[0]

    def scored(
        self, candidate: Candidate, settings: Sequence[Row]
    ) -> tuple[list[SettingResult], Float[Tensor, "setting pair"]]:
        """Return what is measured, and the margin of every pair of the moved domains in nats.

        Args:
            candidate: What is steered with.
            settings: Coefficients, dimensionless.
        """
        before = self.before(candidate)
        measured, scores = self._measured(candidate, settings)
        rows = torch.tensor(settings, dtype=torch.float64)
        costs: list[tuple[float | None, float | None]] = [(None, None)] * len(settings)
        if self.effects is not None:
            ends = torch.cat([rows, -rows]) if self.both_ways else rows
            found = torch.tensor(self.effects(candidate.composition, ends)).double()
            larger = found.unflatten(0, (-1, len(settings))).amax(dim=0)  # NaN where one is
            costs = [(kl, factor) for kl, factor in larger.tolist()]
        whole = zip(settings, measured, costs, strict=True)
        results = [self._result(candidate, c, numbers, before, *cost) for c, numbers, cost in whole]
        own = [
            part.unflatten(1, (2, -1))
            for name, part in zip(self._texts, scores.split(self._sizes, dim=1), strict=True)
            if name in self.moved
        ]
        return results, torch.cat([part[:, 0] - part[:, 1] for part in own], dim=1)

    def before(self, candidate: Candidate) -> Mapping[str, Numbers]:
        """Return the numbers of the unsteered model, measured once.

        Args:
            candidate: Any candidate; it is measured at 0.

        Raises:
            SelectionError: A score is not finite.
        """
        if self._unsteered is None:
            zero = (0.0,) * len(candidate.composition.domains)
            ((self._unsteered,), _) = self._measured(candidate, [zero])
            if not _finite(self._unsteered):
                raise SelectionError(
                    "the unsteered model's scores of these pairs are not finite",
                    found=repr(self._unsteered)[:200],
                    expected="a finite log-probability of every token",
                    do="look at the model's logits; load it in bfloat16 or float32",
                )
        return self._unsteered

    @property
    def _sizes(self) -> list[int]:
        return [len(a.responses) for a in self._texts.values()]

    def _scores(self, candidate: Candidate, settings: Sequence[Row]) -> Tensor:
        """Return the score of every response, `[setting response]` in nats."""
        known = self._scorers.get(id(candidate))
        if known is None:
            known = Scorer(self.model, candidate.composition, self._prompts, self._responses)
            self._scorers = {id(candidate): known}  # what another candidate knew is not kept
        rows = torch.tensor(settings, dtype=torch.float64)
        return reduced(known(rows).logprobs, self.reduce, finite=False)

    def _measured(
        self, candidate: Candidate, settings: Sequence[Row]
    ) -> tuple[list[dict[str, Numbers]], Float[Tensor, "setting pair"]]:
        """Return numbers by domain at each setting, means over both ends if asked, and scores."""
        there = self._scores(candidate, settings)
        if not self.both_ways:
            return [self._numbers(row) for row in there], there
        back = self._scores(candidate, [tuple(-c for c in row) for row in settings])
        both = [
            _mean(self._numbers(one), self._numbers(other, swap=True))
            for one, other in zip(there, back, strict=True)
        ]
        return both, there

    def _numbers(self, scores: Tensor, *, swap: bool = False) -> dict[str, Numbers]:
        """Return the numbers of every domain; swapped, rejected answers count as chosen."""
        found = {}
        for (name, texts), own in zip(self._texts.items(), scores.split(self._sizes), strict=True):
            turned = own.reshape(2, -1).flip(0).reshape(-1) if swap else own
            found[name] = texts.numbers(turned, "preference", self.reduce)
        return found

    def _result(
        self,
        candidate: Candidate,
        coefficients: Row,
        measured: Mapping[str, Numbers],
        before: Mapping[str, Numbers],
        kl: float | None,
        perplexity: float | None,
    ) -> SettingResult:
        own = {name: measured[name] for name in self.moved}
        drops = [
            before[name]["accuracy"] - numbers["accuracy"]
            for name, numbers in measured.items()
            if name not in own
        ]
        return SettingResult(
            coefficients=coefficients,
            objective=self._reached(own) if _finite(measured) else math.nan,
            measured=measured,
            mean=sum(numbers["accuracy"] for numbers in own.values()) / len(own),
            off_target=max(0.0, *drops) if drops else None,
            kl=kl,
            perplexity=perplexity,
            candidate=candidate.name,
            layer=candidate.layer,
        )

    def _reached(self, own: Mapping[str, Numbers]) -> float:
        found = self.objective(own)
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


def _mean(one: Mapping[str, Numbers], other: Mapping[str, Numbers]) -> dict[str, Numbers]:
    return {on: {k: (x + other[on][k]) / 2 for k, x in found.items()} for on, found in one.items()}
