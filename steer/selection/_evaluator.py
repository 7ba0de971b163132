"""Measuring settings of candidates: preference on the pairs of every domain, and side effects."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from steer.errors import SelectionError
from steer.measure import NeutralText, Preference
from steer.measure._reduce import Reduce
from steer.model import Model
from steer.pairs import Pairs
from steer.selection._candidates import Candidate
from steer.selection._kernel import PairScores, Row, Setting, SideEffects, counted
from steer.selection._setting import Numbers, Objective, SettingResult

Try = tuple[Candidate, Row]  # a candidate, and its coefficients
Scores = dict[str, Float[Tensor, "end side pair"]]  # by domain; at the other end sides are swapped
_Key = tuple[Candidate | None, Row]
Cost = tuple[float | None, float | None]  # KL and factor of the perplexity


class Evaluator:
    """Measures settings of any candidates, together; what was measured once is not again."""

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
        self._score, self._progress = PairScores(model, reduce), progress
        self.pairs, self.moved = dict(pairs), tuple(moved)
        self._objective, self._reduce, self._both_ways = objective, reduce, both_ways
        self._effects = None if text is None else SideEffects(model, text)
        self._known: dict[_Key, Scores] = {}
        self._costs: dict[_Key, Cost] = {}

    def __call__(self, candidate: Candidate, settings: Sequence[Row]) -> list[SettingResult]:
        """Return what is measured at each setting of a candidate."""
        return self.measured([(candidate, row) for row in settings])

    def measured(self, tries: Sequence[Try]) -> list[SettingResult]:
        """Return what is measured on all pairs, with side effects; off target beside unsteered."""
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
        """Return what some pairs say of a setting, which is not complete and is never chosen."""
        return self._result(one, scores, self._costs.get(_key(one), (None, None)), None)

    def scores(self, tries: Sequence[Try], sizes: Mapping[str, int]) -> list[Scores]:
        """Return the scores of the first pairs of each domain; only those not known are measured.

        The unsteered model is any candidate at 0.
        """
        together: dict[tuple[tuple[str, int], ...], list[Try]] = {}
        for one in {_key(t): t for t in tries}.values():
            known = self._known.get(_key(one), {})
            have = tuple((n, known[n].shape[-1] if n in known else 0) for n in sizes)
            together.setdefault(have, []).append(one)
        for have, group in together.items():
            self._extend(group, dict(have), sizes)
        return [
            {n: self._known[_key(one)][n][..., :size] for n, size in sizes.items()} for one in tries
        ]

    def _extend(
        self, group: Sequence[Try], have: Mapping[str, int], sizes: Mapping[str, int]
    ) -> None:
        """Measure settings on the pairs that they still lack."""
        new = {n: list(self.pairs[n][have[n] : size]) for n, size in sizes.items()}
        pairs = [pair for part in new.values() for pair in part]
        if not pairs:
            return
        settings: list[Setting] = [(c.composition, row) for c, row in group]
        ends = [settings]
        if self._both_ways:
            ends.append([(composition, tuple(-c for c in row)) for composition, row in settings])
        off = not self._progress
        with tqdm(total=len(group), desc=f"{len(pairs)} pairs", unit="setting", disable=off) as bar:
            done = counted(bar, 2 * len(pairs) * len(ends))
            found = torch.stack([self._score(end, pairs, done=done) for end in ends], dim=1)
        found[:, 1:] = found[:, 1:].flip(2)
        for one, scores in zip(group, found, strict=True):
            parts = scores.split([len(part) for part in new.values()], dim=-1)
            known = self._known.get(_key(one), {})
            self._known[_key(one)] = known | {
                n: torch.cat([known[n], part], dim=-1) if n in known else part
                for n, part in zip(new, parts, strict=True)
            }

    def costs(self, tries: Sequence[Try]) -> list[Cost]:
        """Return KL and perplexity of each setting, the larger of both ends; None without text."""
        if self._effects is None:
            return [(None, None)] * len(tries)
        new = list({_key(t): t for t in tries if _key(t) not in self._costs}.values())
        signs = (1.0, -1.0) if self._both_ways else (1.0,)
        settings = [(c.composition, tuple(s * x for x in row)) for s in signs for c, row in new]
        if settings:
            found = torch.tensor(self._effects(settings), dtype=torch.float64)
            larger = found.unflatten(0, (len(signs), -1)).amax(dim=0)  # NaN where one is
            for one, (kl, factor) in zip(new, larger.tolist(), strict=True):
                self._costs[_key(one)] = kl, factor
        return [self._costs[_key(one)] for one in tries]

    def _numbers(self, scores: Scores) -> dict[str, Numbers]:
        """Return the numbers of each domain, means over the ends; NaN where a score is not."""
        return {name: self._of(part) for name, part in scores.items() if part.shape[-1]}

    def _of(self, scores: Float[Tensor, "end side pair"]) -> Numbers:
        found: dict[str, float] = {}
        for chosen, rejected in scores:
            one = Preference(chosen, rejected, self._reduce)
            low, high = one.accuracy.interval
            numbers = {
                "accuracy": one.accuracy.value,
                "low": low,
                "high": high,
                "margin": one.margin,
                "likelihood": float(chosen.mean()),
            }
            found = {k: found.get(k, 0.0) + x / len(scores) for k, x in numbers.items()}
        if not bool(torch.isfinite(scores).all()):
            found = dict.fromkeys(found, math.nan)
        return {"n": scores.shape[-1], **found}

    def _result(
        self, one: Try, scores: Scores, cost: Cost, before: Mapping[str, Numbers] | None
    ) -> SettingResult:
        candidate, coefficients = one
        measured = self._numbers(scores)
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
            mean=sum(numbers["accuracy"] for numbers in own.values()) / len(own),
            off_target=max(0.0, *drops) if drops else None,
            kl=cost[0],
            perplexity=cost[1],
            candidate=candidate.name,
            layer=candidate.layer,
            complete=before is not None,
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


def _key(one: Try) -> _Key:
    """Return what tells settings apart; the unsteered model is one, whatever the candidate."""
    return one if any(one[1]) else (None, ())


def _finite(measured: Mapping[str, Numbers]) -> bool:
    return all(math.isfinite(x) for numbers in measured.values() for x in numbers.values())
