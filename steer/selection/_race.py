"""Successive halving: candidates at equal KL, on growing sets of pairs, until a few are left."""

import math
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import torch
from tqdm.auto import tqdm

from steer._progress import progress_bar
from steer.algebra import get_operator
from steer.errors import SelectionError
from steer.measure import judge_answers
from steer.measure._answers import answers_at
from steer.model import Model
from steer.pairs import Pairs
from steer.selection._answers import ASKED, TOKENS
from steer.selection._calibration import spend
from steer.selection._candidates import Candidate
from steer.selection._confirm import REFERENCES
from steer.selection._evaluator import Scores
from steer.selection._field import Field, Outcome, Screened
from steer.selection._screen import Prediction, rank_correlation, screen, unscreened
from steer.selection._setting import SettingResult, worst_accuracy
from steer.selection._significance import sign_test
from steer.selection._strength import displacement

_FIRST = 8  # pairs of the screen and of the first heat, at least
_FARTHEST = 4.0  # displacement that is tried, relative to the stream's median norm
_LARGEST = 1e4  # coefficient that is tried, where nothing is added to the stream
_ALIKE = 0.05  # p above which two accuracies cannot be told apart
_JUDGED = 8  # prompts that finalists answer for a judge
_TIMED = 2  # neutral texts whose forward is timed
_WRITTEN = 2  # forwards of a text that writing an answer takes, about
_CALIBRATIONS = 4  # settings on neutral text until a candidate is calibrated, about
_IDLE = "no effect on the margin at this position"
_NOT_FINITE = "its gradient is not finite"
_FULL = "the budget has no room for it"
_OVER = "no coefficient comes near the KL budget"

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
    KL, plus one standard error over the texts, spends the budget: so the KL on other text rarely
    exceeds it. After each heat the better half goes on, to more pairs. Finalists are measured at
    several strengths on all pairs. Settings whose accuracy cannot be told apart are ordered by
    judged answers if there is a judge, then by margin; a judge reads both ends of a knob that is
    to work both ways, and the difference counts.

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

    def search(self, field: Field) -> Outcome:
        """Race the candidates.

        Args:
            field: The candidates, and what they are measured on.

        Returns:
            The setting chosen, and how well the screen predicted.

        Raises:
            SelectionError: A candidate has several domains, there is no KL budget, or no setting
                keeps the limits.
        """
        _check(field)
        race, most = self._within(field)
        race._announce(field)
        screened, predicted = race._predicted(field, most)
        entries, idle = _calibrated(predicted, field)
        screened = replace(screened, dropped={**screened.dropped, **idle})
        for k, (count, heat) in enumerate(race._heats(len(entries), field)):
            entries = entries[:count]
            gains = _gains(entries, field, heat)
            if k == 0 and screened.candidates:  # these pairs are not those of the screen
                screened = replace(screened, correlation=_agreement(entries, gains))
            entries = sorted(entries, key=lambda e: -gains[e])
        candidate, best, why = _best(race._finals(entries[: race.finalists], field), field)
        return Outcome(candidate, best, screened, why)

    def _heats(self, entries: int, field: Field) -> list[tuple[int, dict[str, int]]]:
        """Return for each heat the number of entries and of pairs of each domain."""
        found = [(entries, _heat(field, _FIRST))]
        while entries > self.finalists and found[-1][1] != _whole(field):
            entries = max(self.finalists, -(-entries // 2))
            found.append((entries, _heat(field, 2 * sum(found[-1][1].values()))))
        return found

    def _within(self, field: Field) -> tuple["Race", int]:
        """Return a race within the budget, and the most entries it may have.

        The finals take at most half of the budget, the heats what is left.
        """
        enough, budget = 2 * len(field.candidates), field.budget  # both signs of each
        if budget is None:
            return self, enough
        finalists = min(self.finalists, max(1, budget // (2 * len(self.levels))))
        race = replace(self, finalists=finalists)

        def cost(entries: int) -> int:
            heats = [count for count, _ in race._heats(entries, field)]
            return sum(heats) + min(heats[-1], finalists) * len(self.levels)

        fits = [n for n in range(2, enough + 1) if cost(n) <= budget]
        if not fits:
            raise SelectionError(
                "this budget is too small for a race",
                found=f"budget {budget}",
                expected=f"at least {cost(2)}: a heat or two, and {len(self.levels)} strengths",
                do=f"budget={cost(2)}, or leave it out",
            )
        keep = min(self.keep, fits[-1])
        return replace(race, keep=keep, at_random=min(self.at_random, keep // 5)), fits[-1]

    def _announce(self, field: Field) -> None:
        """Print the number of candidates and the estimated time before the work begins."""
        if not field.progress:
            return
        model, text = field.evaluator.model, field.evaluator.text
        start = perf_counter()
        model.logits(text.prompts[:_TIMED], text.responses[:_TIMED])
        each = (perf_counter() - start) / len(text.prompts[:_TIMED])
        count, texts = len(field.candidates), len(text.prompts)
        raced, finals = min(count, self.keep), self.finalists * len(self.levels)
        answers = 2 * sum(_whole(field).values())
        work = 2.0 * answers + 5 * texts  # the screen, in forwards of one text
        work += (raced * _CALIBRATIONS + finals) * texts / 2  # half of the blocks lie below
        work += (raced + finals + REFERENCES) * answers / 3  # and pairs share their prompts
        work += _WRITTEN * (2 * ASKED + (field.judge is not None) * finals * _JUDGED)
        kept = f", {raced} of which enter the race" if raced < count else ""
        took = each * work
        about = f"{took / 60:.0f} minutes" if took >= 90 else f"{max(1, took):.0f} seconds"
        tqdm.write(f"select: {count} candidates{kept}; about {about}", file=sys.stderr)

    def _predicted(self, field: Field, most: int) -> tuple[Screened, dict[int, Prediction | None]]:
        """Return the candidates that enter the race with their predictions, by number."""
        evaluator = field.evaluator
        reasons = [unscreened(evaluator.model, c) for c in field.candidates]
        plain = [k for k, reason in enumerate(reasons) if not reason]
        others = [k for k, reason in enumerate(reasons) if reason]
        why = tuple(sorted({reason for reason in reasons if reason}))
        seen, found = Pairs.of([]), []
        if plain:
            own = _screened(field).values()
            seen = Pairs.of(p for part in own for p in part.with_domain(None))
            found = screen(
                evaluator.model,
                [field.candidates[k] for k in plain],
                seen,
                field.fisher or evaluator.text,
                evaluator.reduce,
                field.seed,
                field.progress,
            )
        predicted = dict(zip(plain, found, strict=True))
        moving = {k: p for k, p in predicted.items() if p.finite and bool(p.slopes.any())}
        dropped = {
            field.candidates[k].label: _IDLE if p.finite else _NOT_FINITE
            for k, p in predicted.items()
            if k not in moving
        }
        kept = self._spread(moving, field)
        room = (most - len(kept)) // 2  # without a prediction both signs of a candidate enter
        dropped |= {field.candidates[k].label: _FULL for k in others[room:]}
        screened = Screened(len(plain), len(kept), len(seen), reasons=why, dropped=dropped)
        return screened, {**dict.fromkeys(others[:room]), **kept}

    def _spread(
        self, found: Mapping[int, Prediction], field: Field
    ) -> dict[int, Prediction | None]:
        """Return the candidates of greatest predicted gain, spread over positions and layers."""
        ordered = sorted(found, key=lambda k: -found[k].gain(_budget(field)))
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

    def _finals(self, entries: Sequence[_Entry], field: Field) -> list[_Final]:
        """Measure the finalists at several strengths on all pairs."""
        steps = [(e.candidate, (level * e.coefficient,)) for e in entries for level in self.levels]
        tries = [(field.candidates[k], row) for k, row in steps]
        results, found = field.evaluator(tries), []
        scores = field.evaluator.scores(tries, _whole(field))
        for (k, _), result, own in zip(steps, results, scores, strict=True):
            field.add(k, [result])
            hits = torch.cat([(part[:, 0] > part[:, 1]).flatten() for part in own.values()])
            found.append((k, result, tuple(hits.tolist())))
        return found


def _check(field: Field) -> None:
    if any(len(c.composition.domains) > 1 for c in field.candidates):
        raise SelectionError(
            "a race tries alternatives of one domain",
            found="a composition of several domains",
            expected="vectors to choose one from",
            do="strategy='coarse_to_fine' chooses a coefficient for each domain",
        )
    if not field.limits.kl or field.evaluator.text is None:
        raise SelectionError(
            "a race compares candidates at equal KL",
            found=f"limits.kl={field.limits.kl}, neutral text: {field.evaluator.text is not None}",
            expected="a KL budget above 0, and neutral prompts",
            do="limits=Limits(kl=0.5), or name coefficients=(0.5, 1.0, …)",
        )


def _budget(field: Field) -> float:
    return field.limits.kl or 0.0


def _whole(field: Field) -> dict[str, int]:
    """Return the number of pairs of each domain that is asked to move."""
    return {name: len(field.evaluator.pairs[name]) for name in field.evaluator.moved}


def _screened(field: Field) -> dict[str, Pairs]:
    """Return the pairs that the screen sees: the last of them, which no early heat sees."""
    whole = _whole(field)
    share = min(1.0, max(0.5, _FIRST / max(sum(whole.values()), 1)))
    return {
        name: field.evaluator.pairs[name][n - math.ceil(share * n) :] for name, n in whole.items()
    }


def _heat(field: Field, size: int) -> dict[str, int]:
    """Return numbers of pairs by domain, `size` in all; all pairs if `size` is near that."""
    own = _whole(field)
    share = size / max(sum(own.values()), 1)
    return own if share > 0.75 else {name: math.ceil(share * n) for name, n in own.items()}


def _calibrated(
    predicted: Mapping[int, Prediction | None], field: Field
) -> tuple[list[_Entry], dict[str, str]]:
    """Return the candidates at the coefficients that spend the KL budget, and why others do not."""
    kl, model = _budget(field), field.evaluator.model
    starts: dict[tuple[int, float], tuple[Candidate, float, float]] = {}
    for k, prediction in predicted.items():
        first = 1.0 if prediction is None else prediction.coefficient(kl)
        for sign in (1.0, -1.0) if prediction is None else (math.copysign(1.0, first),):
            most = _largest(model, field.candidates[k], sign)
            start = abs(first) if math.isfinite(first) else most / 16
            if most > 0:
                starts[k, sign] = field.candidates[k], sign * start, most
    with progress_bar(
        progress=field.progress, total=len(starts), desc="calibrate", unit="candidate"
    ) as bar:
        found = spend(field.evaluator, starts, kl, lambda n: bar.update(n - bar.n))
    entries = []
    for (k, _), (c, spent) in found.items():
        prediction = predicted[k]
        if spent > 0:
            gain = math.nan if prediction is None else prediction.gain(kl)
            entries.append(_Entry(k, c, gain))
    left_out = {*predicted} - {entry.candidate for entry in entries}
    if not entries:
        raise SelectionError(
            "no candidate can be brought within the KL budget",
            found=f"{len(field.candidates)} candidates at a KL of {kl:g} nats per token",
            expected="a vector, a gate and scope that act on the pairs and on neutral text",
            do="look at the vectors' norms, allow another KL, or pass neutral= prompts it acts on",
        )
    return entries, {field.candidates[k].label: _OVER for k in sorted(left_out)}


def _largest(model: Model, candidate: Candidate, sign: float) -> float:
    """Return the largest coefficient of a sign worth trying that the operator accepts."""
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


def _gains(entries: Sequence[_Entry], field: Field, heat: Mapping[str, int]) -> dict[_Entry, float]:
    """Return the mean change of margin of each entry on the first pairs, in nats."""
    evaluator = field.evaluator
    tries = [(field.candidates[e.candidate], (e.coefficient,)) for e in entries]
    before, *scores = evaluator.scores([(tries[0][0], (0.0,)), *tries], heat)
    gains: dict[_Entry, float] = {}
    for entry, one, found in zip(entries, tries, scores, strict=True):
        field.add(entry.candidate, [evaluator.partly(one, found)])
        gain = _mean_margin(found) - _mean_margin(before)
        gains[entry] = -math.inf if math.isnan(gain) else gain
    return gains


def _mean_margin(scores: Scores) -> float:
    margins = torch.cat([part[:, 0] - part[:, 1] for part in scores.values()], dim=-1)
    return float(margins.double().mean())


def _agreement(entries: Sequence[_Entry], gains: Mapping[_Entry, float]) -> float:
    """Return the rank correlation of the predicted and the measured gains."""
    known = [(e.predicted, gains[e]) for e in entries if not math.isnan(e.predicted)]
    return rank_correlation([p for p, _ in known], [m for _, m in known])


def _best(finals: Sequence[_Final], field: Field) -> tuple[int, SettingResult, str]:
    """Return the final setting to choose, and why if it has not the highest objective."""
    kept = [final for final in finals if final[1].finite and field.limits.violation(final[1]) == 0]
    if not kept:
        raise SelectionError(
            "no setting of the finalists keeps the limits",
            found=f"{len(finals)} settings measured",
            expected=f"one within {field.limits}",
            do="allow more, or leave out limits other than KL",
        )
    top = max(kept, key=lambda final: final[1].rank(0.0))
    if field.evaluator.objective is not worst_accuracy:
        return *top[:2], ""
    alike = [final for final in kept if not _told_apart(top[2], final[2])]
    judged = _judged(alike, field)
    final = max(alike, key=lambda final: (judged.get(id(final), 0.0), _margin(final[1], field)))
    if final is top:
        return *top[:2], ""
    by = judged and judged[id(final)] > judged[id(top)]
    mine, its = (judged[id(one)] if by else _margin(one[1], field) for one in (final, top))
    has = "the same objective"
    if top[1].objective > final[1].objective:
        has = f"the higher objective {top[1].objective:.4g}, but their accuracies cannot be told "
        has += f"apart on these pairs (sign test, p > {_ALIKE:g})"
    decides = "judged answers decide" if by else "the margin decides"
    why = f"{top[1].at} has {has}; {decides}: {mine:.3g} against {its:.3g}."
    return *final[:2], why


def _told_apart(one: Sequence[bool], other: Sequence[bool]) -> bool:
    """Return whether the first setting orders significantly more pairs rightly."""
    up = sum(a and not b for a, b in zip(one, other, strict=True))
    down = sum(b and not a for a, b in zip(one, other, strict=True))
    return sign_test(up, down) < _ALIKE


def _margin(result: SettingResult, field: Field) -> float:
    found = [result.measured[name] for name in field.evaluator.moved]
    return sum(n["margin"] * n["n"] for n in found) / sum(n["n"] for n in found)


def _judged(finals: Sequence[_Final], field: Field) -> dict[int, float]:
    """Return the judged value of each final setting's answers; nothing without a judge.

    Of a knob for both ways it is the difference between its ends.
    """
    if field.judge is None or len(finals) < 2:
        return {}
    (judge, wanted), evaluator = field.judge, field.evaluator
    asked = dict.fromkeys(pair.prompt for n in evaluator.moved for pair in evaluator.pairs[n])
    prompts = [*asked][:_JUDGED]
    knobs = [
        (field.candidates[k].composition, tuple(sign * c for c in result.coefficients))
        for sign in evaluator.signs
        for k, result, _ in finals
    ]
    values = [
        judge_answers(judge, prompts, texts, wanted=wanted).value
        for texts in answers_at(evaluator.model, knobs, prompts, TOKENS)
    ]
    n = len(finals)
    ends = zip(finals, values[:n], values[n:] or [0.0] * n, strict=True)
    return {id(final): value - back for final, value, back in ends}
