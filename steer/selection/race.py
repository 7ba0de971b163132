"""Successive halving: candidates at equal KL, on growing sets of pairs, until a few are left."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from tqdm.auto import tqdm

from steer.errors import SelectionError
from steer.evaluate.judge.result import judge_answers
from steer.model import Model
from steer.operator import get_operator
from steer.pairs import Pairs
from steer.selection.calibration import crossing
from steer.selection.candidates import Candidate
from steer.selection.effects import SideEffects
from steer.selection.field import Field
from steer.selection.outcome import Outcome, Screened
from steer.selection.screen import Prediction, rank_correlation, screen, unscreened
from steer.selection.setting import SettingResult
from steer.selection.significance import sign_test
from steer.selection.task import Task
from steer.strength import displacement

_FIRST = 8  # pairs of the screen and of the first heat, at least
_NEAR = 0.9  # of the KL budget: a coefficient that spends so much of it is calibrated
_FARTHEST = 4.0  # displacement that is tried, relative to the stream's median norm
_LARGEST = 1e4  # coefficient that is tried, where nothing is added to the stream
_ALIKE = 0.05  # p above which two accuracies cannot be told apart
_JUDGED = 8  # prompts that finalists answer for a judge

_ByDomain = Mapping[str, Pairs]
_Final = tuple[int, SettingResult, tuple[bool, ...]]  # candidate, result, pairs preferred


@dataclass(frozen=True, slots=True)
class _Entry:
    """A candidate in the race: its number, coefficient and predicted gain in nats."""

    candidate: int
    coefficient: float
    predicted: float = math.nan


@dataclass(frozen=True, slots=True)
class Race:
    """Screen all candidates, race those that are promising at equal KL, refine the finalists.

    The screen predicts what each candidate gains at the KL budget (`steer.selection.screen`). The
    best enter the race, spread over positions and layers, with some drawn at random beside them;
    candidates that cannot be screened enter too. Each gets the coefficient at which its measured
    KL spends the budget. After each heat the better half goes on, to more pairs. Finalists are
    measured at several strengths on all pairs. Settings whose accuracy cannot be told apart are
    ordered by judged answers if there is a judge, then by margin.

    Args:
        keep: Candidates with a prediction that enter the race.
        at_random: How many of them are drawn at random among those that the screen would drop.
        finalists: Candidates measured at several strengths.
        levels: Those strengths, as shares of the coefficient that spends the budget.
    """

    keep: int = 20
    at_random: int = 4
    finalists: int = 3
    levels: tuple[float, ...] = (0.5, 0.75, 1.0)

    def search(self, tasks: Sequence[Task], field: Field) -> Outcome:
        """Race the candidates.

        Args:
            tasks: One for each candidate; what is measured stands in them.
            field: The candidates, and what they are measured on.

        Returns:
            The setting chosen, and how well the screen predicted.

        Raises:
            SelectionError: A candidate has several domains, there is no KL budget, or no setting
                keeps the limits.
        """
        _check(field)
        screened, predicted = self._predicted(field)
        entries = _calibrated(predicted, field)
        heat, unseen = _heat(field, _FIRST), screened is not None
        while True:
            gains = _gains(entries, tasks, field, heat)
            if screened is not None and unseen:  # the heat's pairs are not those of the screen
                screened = screened.measured(_agreement(entries, gains))
                unseen = False
            entries = sorted(entries, key=lambda e: -gains[e])
            if len(entries) <= self.finalists or _size(heat) == _size(_own(field)):
                break
            entries = entries[: max(self.finalists, -(-len(entries) // 2))]
            heat = _heat(field, 2 * _size(heat))
        finals = self._finals(entries[: self.finalists], tasks, field)
        number, best = _best(finals, field)
        return Outcome(number, best, screened)

    def _predicted(self, field: Field) -> tuple[Screened | None, dict[int, Prediction | None]]:
        """Return the candidates that enter the race with their predictions, by number."""
        reasons = [unscreened(field.model, c) for c in field.candidates]
        plain = [k for k, reason in enumerate(reasons) if not reason]
        others: dict[int, Prediction | None] = {k: None for k, r in enumerate(reasons) if r}
        if not plain or field.fisher is None:
            return None, others | dict.fromkeys(plain)
        seen = Pairs.of(p for part in _screened(field).values() for p in part.with_domain(None))
        found = screen(
            field.model,
            [field.candidates[k] for k in plain],
            seen,
            field.fisher,
            field.reduce,
            field.seed,
            field.progress,
        )
        kept = self._spread(dict(zip(plain, found, strict=True)), field)
        why = tuple(sorted({reason for reason in reasons if reason}))
        return Screened(len(plain), len(kept), len(seen), reasons=why), others | kept

    def _spread(
        self, found: Mapping[int, Prediction], field: Field
    ) -> dict[int, Prediction | None]:
        """Return the candidates of greatest predicted gain, spread over positions and layers."""
        kl = field.limits.kl or 0.0
        ordered = sorted(found, key=lambda k: -found[k].gain(kl))
        if len(ordered) <= self.keep:
            return {k: found[k] for k in ordered}
        names = {field.candidates[k].name for k in ordered}
        most = {"name": max(3, -(-self.keep // len(names)), self.keep // 3), "layer": 3}
        used: dict[tuple[str, object], int] = {}
        taken: list[int] = []
        for k in ordered:
            candidate = field.candidates[k]
            places = [("name", candidate.name), ("layer", candidate.layer)]
            room = all(used.get(place, 0) < most[place[0]] for place in places)
            if room and len(taken) < self.keep - self.at_random:
                taken.append(k)
                used |= {place: used.get(place, 0) + 1 for place in places}
        rest = [k for k in ordered if k not in taken]
        drawn = random.Random(field.seed).sample(rest, min(self.keep - len(taken), len(rest)))
        return {k: found[k] for k in (*taken, *drawn)}

    def _finals(
        self, entries: Sequence[_Entry], tasks: Sequence[Task], field: Field
    ) -> list[_Final]:
        """Measure the finalists at several strengths on all pairs."""
        evaluator = field.evaluator(field.pairs, field.text)
        found: list[_Final] = []
        for entry in entries:
            rows = [(level * entry.coefficient,) for level in self.levels]
            results, margins = evaluator.scored(field.candidates[entry.candidate], rows)
            tasks[entry.candidate].add(results)
            hits = [tuple(row) for row in (margins > 0).tolist()]
            found += zip([entry.candidate] * len(rows), results, hits, strict=True)
        return found


def _check(field: Field) -> None:
    if any(len(c.composition.domains) > 1 for c in field.candidates):
        raise SelectionError(
            "a race tries alternatives of one domain",
            found="a composition of several domains",
            expected="vectors to choose one from",
            do="strategy='coarse_to_fine' chooses a coefficient for each domain",
        )
    if not field.limits.kl or field.text is None:
        raise SelectionError(
            "a race compares candidates at equal KL",
            found=f"limits.kl={field.limits.kl}, neutral text: {field.text is not None}",
            expected="a KL budget above 0, and neutral prompts",
            do="limits=Limits(kl=0.5), or name coefficients=(0.5, 1.0, …)",
        )


def _own(field: Field) -> dict[str, Pairs]:
    return {name: field.pairs[name] for name in field.moved}


def _size(pairs: _ByDomain) -> int:
    return sum(map(len, pairs.values()))


def _screened(field: Field) -> dict[str, Pairs]:
    """Return the pairs that the screen sees: the last of them, which no early heat sees."""
    own = _own(field)
    share = min(1.0, max(0.5, _FIRST / max(_size(own), 1)))
    return {name: part[len(part) - math.ceil(share * len(part)) :] for name, part in own.items()}


def _heat(field: Field, size: int) -> dict[str, Pairs]:
    """Return the first pairs of each domain, about `size` in all; all of them where it is near."""
    own = _own(field)
    share = size / max(_size(own), 1)
    if share > 0.75:
        return own
    return {name: part[: math.ceil(share * len(part))] for name, part in own.items()}


def _calibrated(predicted: Mapping[int, Prediction | None], field: Field) -> list[_Entry]:
    """Return the candidates at the coefficients that spend the KL budget."""
    kl = field.limits.kl or 0.0
    entries = []
    effects = SideEffects(field.model, field.text) if field.text is not None else None
    bar = tqdm(predicted.items(), desc="calibrate", unit="candidate", disable=not field.progress)
    for k, prediction in bar:
        candidate = field.candidates[k]
        first = 1.0 if prediction is None else prediction.coefficient(kl)
        if effects is None or not math.isfinite(first):
            continue
        for sign in (1.0, -1.0) if prediction is None else (math.copysign(1.0, first),):
            most = _largest(field.model, candidate, sign)
            if most == 0:
                continue

            def at(c: float, sign: float = sign, candidate: Candidate = candidate) -> float:
                ends = [[sign * c], [-sign * c]] if field.both_ways else [[sign * c]]
                rows = torch.tensor(ends, dtype=torch.float64)
                return max((found for found, _ in effects(candidate.composition, rows)), key=_worse)

            c, _ = crossing(at, _NEAR * kl, kl, abs(first), most)
            if c > 0:
                gain = math.nan if prediction is None else prediction.gain(kl)
                entries.append(_Entry(k, sign * c, gain))
    if not entries:
        raise SelectionError(
            "no candidate can be brought within the KL budget",
            found=f"{len(predicted)} candidates at a KL of {kl:g} nats per token",
            expected="a vector that moves the model",
            do="look at the vectors' norms, or allow another KL",
        )
    return entries


def _worse(kl: float) -> float:
    return math.inf if math.isnan(kl) else kl


def _largest(model: Model, candidate: Candidate, sign: float) -> float:
    """Return the largest coefficient of a sign that makes sense and that the operator takes."""
    (part,) = candidate.composition.parts.values()
    operator = get_operator(part.operator)
    full = displacement(model, candidate.composition, [1.0])
    for most in (_FARTHEST / full if full else _LARGEST, 1.0):
        try:
            operator.check(torch.tensor([[sign * most]]))
        except ValueError:
            continue
        return most
    return 0.0


def _gains(
    entries: Sequence[_Entry], tasks: Sequence[Task], field: Field, heat: _ByDomain
) -> dict[_Entry, float]:
    """Return the mean change of margin of each entry on some pairs, in nats."""
    evaluator = field.evaluator(heat, None)
    gains: dict[_Entry, float] = {}
    for entry in tqdm(entries, desc=f"race: {_size(heat)} pairs", disable=not field.progress):
        candidate = field.candidates[entry.candidate]
        before = evaluator.before(candidate)
        (result,) = evaluator(candidate, [(entry.coefficient,)])
        tasks[entry.candidate].add([replace(result, complete=False)])
        changes = [
            (numbers["margin"] - before[name]["margin"]) * numbers["n"]
            for name, numbers in result.measured.items()
        ]
        gain = sum(changes) / _size(heat)
        gains[entry] = -math.inf if math.isnan(gain) else gain
    return gains


def _agreement(entries: Sequence[_Entry], gains: Mapping[_Entry, float]) -> float:
    """Return the rank correlation of the predicted and the measured gains."""
    known = [(e.predicted, gains[e]) for e in entries if not math.isnan(e.predicted)]
    return rank_correlation([p for p, _ in known], [m for _, m in known])


def _best(finals: Sequence[_Final], field: Field) -> tuple[int, SettingResult]:
    """Return the final setting to choose; see `Race`."""
    kept = [final for final in finals if final[1].finite and field.limits.violation(final[1]) == 0]
    if not kept:
        raise SelectionError(
            "no setting of the finalists keeps the limits",
            found=f"{len(finals)} settings measured",
            expected=f"one within {field.limits}",
            do="allow more, or leave out limits other than KL",
        )
    top = max(kept, key=lambda final: final[1].rank(0.0))
    alike = [final for final in kept if not _told_apart(top[2], final[2])]
    judged = _judged(alike, field)
    number, result, _ = max(
        alike, key=lambda final: (judged.get(id(final), 0.0), _margin(final[1], field))
    )
    return number, result


def _told_apart(one: Sequence[bool], other: Sequence[bool]) -> bool:
    """Return whether the first prefers more pairs than the other by more than chance."""
    up = sum(a and not b for a, b in zip(one, other, strict=True))
    down = sum(b and not a for a, b in zip(one, other, strict=True))
    return sign_test(up, down) < _ALIKE


def _margin(result: SettingResult, field: Field) -> float:
    found = [result.measured[name] for name in field.moved]
    return sum(n["margin"] * n["n"] for n in found) / sum(n["n"] for n in found)


def _judged(finals: Sequence[_Final], field: Field) -> dict[int, float]:
    """Return the judged value of each final setting's answers; nothing without a judge."""
    if field.judge is None or len(finals) < 2:
        return {}
    judge, wanted = field.judge
    prompts = [pair.prompt for part in _own(field).values() for pair in part][:_JUDGED]
    found = {}
    for final in tqdm(finals, desc="judge", unit="setting", disable=not field.progress):
        knob = field.candidates[final[0]].composition
        with field.model.steered(knob, list(final[1].coefficients)):
            answers = field.model.generate(prompts)
        found[id(final)] = judge_answers(judge, prompts, answers, wanted=wanted).value
    return found
