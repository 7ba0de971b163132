"""Measuring settings of candidates: preference on the pairs of every domain, and side effects."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steer._progress import progress_bar
from steer.errors import SelectionError
from steer.measure import NeutralText
from steer.measure._reduce import Reduce
from steer.measure._scores import DataScorer, Knob, Row, preference_numbers
from steer.measure._side_effects import SideEffect, SideEffects
from steer.model import Model
from steer.pairs import Pairs
from steer.selection._candidates import Candidate
from steer.selection._setting import Numbers, Objective, SettingResult

Try = tuple[Candidate, Row]  # a candidate, and its coefficients
Sizes = Mapping[str, int]  # how many pairs of each domain
Scores = dict[str, Float[Tensor, "end side pair"]]  # by domain; at the other end sides are swapped
_Key = tuple[Candidate | None, Row]


class Evaluator:
    """Measures settings of any candidates together, each pair at each setting once."""

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
        progress: bool = False,
    ) -> None:
        self.model, self.pairs, self.moved = model, dict(pairs), tuple(moved)
        self.objective, self.text, self.reduce = objective, text, reduce
        self.signs = (1.0, -1.0) if both_ways else (1.0,)
        self._progress = progress
        self._effects = None if text is None else SideEffects(model, text)
        self._scorers: dict[tuple[tuple[str, int, int], ...], DataScorer] = {}
        self._known: dict[_Key, Scores] = {}
        self._costs: dict[_Key, SideEffect] = {}

    def __call__(self, tries: Sequence[Try]) -> list[SettingResult]:
        """Measure settings on all pairs, with side effects."""
        sizes = {name: len(part) for name, part in self.pairs.items()}
        zero = (tries[0][0], (0.0,) * len(tries[0][0].composition.domains))
        before, *scores = self.scores([zero, *tries], sizes)
        own = self._numbers(before)
        if not _finite(own):
            raise SelectionError(
                "the unsteered model's scores of these pairs are not finite",
                found=repr(own)[:200],
                expected="a finite log-probability of every token",
                do="look at the model's logits; load it in bfloat16 or float32",
            )
        whole = zip(tries, scores, self.costs(tries), strict=True)
        return [self._result(one, found, cost, own) for one, found, cost in whole]

    def partly(self, one: Try, scores: Scores) -> SettingResult:
        """Return the result of a setting on some pairs; it is incomplete and never chosen."""
        return self._result(one, scores, self._costs.get(_key(one)), None)

    def scores(self, tries: Sequence[Try], sizes: Sizes) -> list[Scores]:
        """Return the scores of the first pairs of each domain; only unknown ones are measured."""
        together: dict[tuple[int, ...], list[Try]] = {}
        for one in {_key(t): t for t in tries}.values():
            known = self._known.get(_key(one), {})
            have = tuple(known[n].shape[-1] if n in known else 0 for n in sizes)
            together.setdefault(have, []).append(one)
        for have, group in together.items():
            spans = zip(sizes, have, sizes.values(), strict=True)
            if new := tuple(span for span in spans if span[1] < span[2]):
                self._extend(group, new)
        return [
            {n: self._known[_key(one)][n][..., :size] for n, size in sizes.items()} for one in tries
        ]

    def _extend(self, group: Sequence[Try], spans: tuple[tuple[str, int, int], ...]) -> None:
        """Measure settings on the pairs that they lack."""
        if spans not in self._scorers:
            new = {name: self.pairs[name][start:stop] for name, start, stop in spans}
            self._scorers[spans] = DataScorer(self.model, new, self.reduce)
        knobs = [self._knob(one, sign) for sign in self.signs for one in group]
        desc = f"{sum(stop - start for _, start, stop in spans)} pairs"
        with progress_bar(progress=self._progress, total=len(knobs), desc=desc) as bar:
            scored = self._scorers[spans](knobs, bar.update)
        for name, found in scored.items():
            each = found.unflatten(0, (-1, len(group))).transpose(0, 1)  # [setting end side pair]
            each = torch.cat([each[:, :1], each[:, 1:].flip(2)], dim=1)
            for one, scores in zip(group, each, strict=True):
                known = self._known.setdefault(_key(one), {})
                known[name] = torch.cat([known[name], scores], -1) if name in known else scores

    def costs(self, tries: Sequence[Try]) -> list[SideEffect | None]:
        """Return the side effect of each setting, the larger of both ends; None without text."""
        if self._effects is None:
            return [None] * len(tries)
        new = list({_key(t): t for t in tries if _key(t) not in self._costs}.values())
        if new:
            found = self._effects([self._knob(one, sign) for sign in self.signs for one in new])
            table = torch.tensor(found, dtype=torch.float64).unflatten(0, (-1, len(new)))
            for one, larger in zip(new, table.amax(dim=0).tolist(), strict=True):  # NaN if one is
                self._costs[_key(one)] = SideEffect(*larger)
        return [self._costs[_key(one)] for one in tries]

    @staticmethod
    def _knob(one: Try, sign: float) -> Knob:
        return one[0].composition, tuple(sign * c for c in one[1])

    def _numbers(self, scores: Scores) -> dict[str, Numbers]:
        """Return the numbers of each domain: means over the ends, NaN if a score is not finite."""
        found: dict[str, Numbers] = {}
        for name, part in scores.items():
            ends = [preference_numbers(end, self.reduce) for end in part]
            means = {k: sum(end[k] for end in ends) / len(ends) for k in ends[0]}
            found[name] = {**means, "n": part.shape[-1]}
        return found

    def _result(
        self,
        one: Try,
        scores: Scores,
        cost: SideEffect | None,
        before: Mapping[str, Numbers] | None,
    ) -> SettingResult:
        (candidate, coefficients), measured = one, self._numbers(scores)
        own = {name: measured[name] for name in self.moved}
        drops = [
            before[name]["accuracy"] - numbers["accuracy"]
            for name, numbers in measured.items()
            if before is not None and name not in own
        ]
        return SettingResult(
            coefficients=coefficients,
            objective=self._reached(own) if _finite(measured) else math.nan,
            measured=measured,
            accuracy=sum(numbers["accuracy"] for numbers in own.values()) / len(own),
            off_target=max(0.0, *drops) if drops else None,
            kl=None if cost is None else cost.kl,
            perplexity=None if cost is None else cost.perplexity,
            candidate=candidate.name,
            layer=candidate.layer,
            complete=before is not None,
            kl_error=None if cost is None else cost.error,
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


def _key(one: Try) -> _Key:
    """Return the key of a setting; all candidates at 0 share that of the unsteered model."""
    return one if any(one[1]) else (None, ())


def _finite(measured: Mapping[str, Numbers]) -> bool:
    return all(math.isfinite(x) for numbers in measured.values() for x in numbers.values())
