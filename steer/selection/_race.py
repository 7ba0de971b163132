"""Successive halving: candidates at equal KL, on growing sets of pairs, until a few are left."""

import math
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import torch
from jaxtyping import Float
from torch import Tensor
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
from steer.selection._evaluator import Try
from steer.selection._field import Field, Outcome, Screened
from steer.selection._screen import Prediction, rank_correlation, screen, unscreened
from steer.selection._setting import SettingResult, worst_accuracy
from steer.selection._significance import sign_test
from steer.selection._strength import displacement

_FIRST = 8  # pairs of the screen and of the first heat, at least
_MOST = 0.75  # of the pairs: a heat that would see more sees all
_FARTHEST = 4.0  # displacement that is tried, relative to the stream's median norm
_LARGEST = 1e4  # coefficient that is tried, where nothing is added to the stream
_ALIKE = 0.05  # p above which two accuracies cannot be told apart
_OF_LAYER = 3  # candidates of one layer
_JUDGED = 8  # prompts that finalists answer for a judge
_TIMED = 2  # neutral texts whose forward is timed
_WRITTEN = 2  # forwards of a text that writing an answer takes, about
_CALIBRATIONS = 4  # settings on neutral text until a candidate is calibrated, about
_IDLE = "no effect on the margin at this position"
_NOT_FINITE = "its gradient is not finite"
_FULL = "the budget has no room for it"
_OVER = "no coefficient comes near the KL budget"


@dataclass(frozen=True, slots=True)
class _Entry:
    """A candidate in the race: its number, coefficient and predicted gain in nats."""

    candidate: int
    coefficient: float
    predicted: float


@dataclass(frozen=True, eq=False, slots=True)
class _Final:
    """A setting of a finalist, with its result and which pairs it orders rightly."""

    candidate: int
    result: SettingResult
    hits: tuple[bool, ...]


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
                known = [(e.predicted, gains[e]) for e in entries if not math.isnan(e.predicted)]
                agreement = rank_correlation([p for p, _ in known], [gain for _, gain in known])
                screened = replace(screened, correlation=agreement)
            entries = sorted(entries, key=lambda e: -gains[e])
        finals = race._finals(entries[: race.finalists], field)
        top = field.chosen().best
        first = next(final for final in finals if final.result is top)
        final, why = _best(finals, first, field)
        return Outcome(final.candidate, final.result, screened, why)

    def _heats(self, entries: int, field: Field) -> list[tuple[int, int]]:
        """Return the number of entries and of pairs of each heat; the last may be all pairs."""
        n, size = len(_pairs(field)), _FIRST
        found = [(entries, size if size <= _MOST * n else n)]
        while entries > self.finalists and found[-1][1] != n:
            entries, size = max(self.finalists, -(-entries // 2)), 2 * size
            found.append((entries, size if size <= _MOST * n else n))
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
        answers = 2 * len(_pairs(field))
        raced, finals = min(count, self.keep), self.finalists * len(self.levels)
        work = 2.0 * answers + 5 * texts  # the screen, in forwards of one text
        work += (raced * _CALIBRATIONS + finals) * texts / 2  # half of the blocks lie below
        work += (raced + finals + REFERENCES) * answers / 3  # and pairs share their prompts
        work += _WRITTEN * (2 * ASKED + (field.judge is not None) * finals * _JUDGED)
        kept = f", {raced} of which enter the race" if raced < count else ""
        seconds = each * work
        about = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{max(1, seconds):.0f} seconds"
        tqdm.write(f"select: {count} candidates{kept}; about {about}", file=sys.stderr)

    def _predicted(self, field: Field, most: int) -> tuple[Screened, dict[int, Prediction | None]]:
        """Return the candidates that enter the race with their predictions, by number."""
        evaluator, candidates = field.evaluator, field.candidates
        reasons = {k: unscreened(evaluator.model, c) for k, c in enumerate(candidates)}
        plain = [k for k, reason in reasons.items() if not reason]
        others = [k for k, reason in reasons.items() if reason]
        seen = _screened(field) if plain else Pairs.of([])
        given = [candidates[k] for k in plain]
        text = field.fisher or evaluator.text
        options = evaluator.reduce, field.seed, field.progress
        found = screen(evaluator.model, given, seen, text, *options) if plain else []
        predicted = dict(zip(plain, found, strict=True))
        moving = {k: p for k, p in predicted.items() if p.finite and bool(p.slopes.any())}
        kept = self._spread(moving, field)
        room = (most - len(kept)) // 2  # without a prediction both signs of a candidate enter
        dropped = {k: _IDLE if p.finite else _NOT_FINITE for k, p in predicted.items()}
        dropped |= dict.fromkeys(others[room:], _FULL)
        screened = Screened(
            len(plain),
            len(kept),
            len(seen),
            reasons=tuple(sorted({*reasons.values()} - {""})),
            dropped={candidates[k].label: why for k, why in dropped.items() if k not in moving},
        )
        return screened, {**dict.fromkeys(others[:room]), **kept}

    def _spread(
        self, found: Mapping[int, Prediction], field: Field
    ) -> dict[int, Prediction | None]:
        """Return the candidates of greatest predicted gain, spread over positions and layers."""
        ordered = sorted(found, key=lambda k: -found[k].gain(_budget(field)))
        names = len({field.candidates[k].name for k in ordered}) or 1
        of_name = max(3, -(-self.keep // names), self.keep // 3)
        used: Counter[object] = Counter()
        taken: list[int] = []
        for k in ordered:
            name, layer = field.candidates[k].name, field.candidates[k].layer
            room = used[name] < of_name and used[layer] < _OF_LAYER
            if room and len(taken) < self.keep - self.at_random:
                taken.append(k)
                used.update((name, layer))
        rest = [k for k in ordered if k not in taken]
        drawn = random.Random(field.seed).sample(rest, min(self.keep - len(taken), len(rest)))
        return {k: found[k] for k in (*taken, *drawn)}

    def _finals(self, entries: Sequence[_Entry], field: Field) -> list[_Final]:
        """Measure the finalists at several strengths on all pairs."""
        steps = [(e.candidate, (level * e.coefficient,)) for e in entries for level in self.levels]
        tries = [(field.candidates[k], row) for k, row in steps]
        results, finals = field.evaluator(tries), []
        for (k, _), result, own in zip(steps, results, _scores(tries, field), strict=True):
            field.add(k, [result])
            finals.append(_Final(k, result, tuple((own[:, 0] > own[:, 1]).flatten().tolist())))
        return finals


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


def _pairs(field: Field) -> Pairs:
    """Return the pairs of the one domain that alternatives are to move."""
    (domain,) = field.evaluator.moved
    pairs: Pairs = field.evaluator.pairs[domain]
    return pairs


def _screened(field: Field) -> Pairs:
    """Return the pairs that the screen sees: the last of them, which no early heat sees."""
    pairs = _pairs(field)
    n = len(pairs)
    return pairs[n - min(n, max(math.ceil(n / 2), _FIRST)) :].with_domain(None)


def _calibrated(
    predicted: Mapping[int, Prediction | None], field: Field
) -> tuple[list[_Entry], dict[str, str]]:
    """Return the candidates at the coefficients that spend the KL budget, and why others do not."""
    kl, model = _budget(field), field.evaluator.model
    starts: dict[tuple[int, float], tuple[Candidate, float, float]] = {}
    for k, prediction in predicted.items():
        first = 1.0 if prediction is None else prediction.coefficient(kl)
        for sign in (1.0, -1.0) if prediction is None else (math.copysign(1.0, first),):
            if most := _largest(model, field.candidates[k], sign):
                start = abs(first) if math.isfinite(first) else most / 16
                starts[k, sign] = field.candidates[k], sign * start, most
    with progress_bar(
        progress=field.progress, total=len(starts), desc="calibrate", unit="candidate"
    ) as bar:
        found = spend(field.evaluator, starts, kl, lambda n: bar.update(n - bar.n))
    gains = {k: math.nan if p is None else p.gain(kl) for k, p in predicted.items()}
    entries = [_Entry(k, c, gains[k]) for (k, _), (c, spent) in found.items() if spent > 0]
    if not entries:
        raise SelectionError(
            "no candidate can be brought within the KL budget",
            found=f"{len(field.candidates)} candidates at a KL of {kl:g} nats per token",
            expected="a vector, a gate and scope that act on the pairs and on neutral text",
            do="look at the vectors' norms, allow another KL, or pass neutral= prompts it acts on",
        )
    left_out = {*predicted} - {entry.candidate for entry in entries}
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


def _scores(
    tries: Sequence[Try], field: Field, pairs: int | None = None
) -> list[Float[Tensor, "end side pair"]]:
    """Return the scores of settings on the first pairs; on all by default."""
    (domain,) = field.evaluator.moved
    sizes = {domain: len(_pairs(field)) if pairs is None else pairs}
    return [found[domain] for found in field.evaluator.scores(tries, sizes)]


def _gains(entries: Sequence[_Entry], field: Field, pairs: int) -> dict[_Entry, float]:
    """Return the mean change of margin of each entry on the first pairs, in nats."""
    tries: list[Try] = [(field.candidates[e.candidate], (e.coefficient,)) for e in entries]
    before, *scores = _scores([(tries[0][0], (0.0,)), *tries], field, pairs)
    gains: dict[_Entry, float] = {}
    for entry, one, found in zip(entries, tries, scores, strict=True):
        field.add(entry.candidate, [field.evaluator.partly(one, {field.evaluator.moved[0]: found})])
        gain = float((found[:, 0] - found[:, 1]).mean() - (before[:, 0] - before[:, 1]).mean())
        gains[entry] = -math.inf if math.isnan(gain) else gain
    return gains


def _best(finals: Sequence[_Final], top: _Final, field: Field) -> tuple[_Final, str]:
    """Return the final setting to choose, and why if it is not the one that ranks first."""
    if field.evaluator.objective is not worst_accuracy:
        return top, ""
    kept = [f for f in finals if f.result.finite and field.limits.violation(f.result) == 0]
    alike = [final for final in kept if not _told_apart(top.hits, final.hits)]
    judged = _judged(alike, field)
    (domain,) = field.evaluator.moved
    margins = [final.result.measured[domain]["margin"] for final in alike]
    k = max(range(len(alike)), key=lambda k: (judged[k], margins[k]))
    final, first = alike[k], alike.index(top)
    if final is top:
        return top, ""
    by = judged[k] > judged[first]
    values, decides = (judged, "judged answers decide") if by else (margins, "the margin decides")
    has = "the same objective"
    if top.result.objective > final.result.objective:
        has = f"the higher objective {top.result.objective:.4g}, but their accuracies cannot be "
        has += f"told apart on these pairs (sign test, p > {_ALIKE:g})"
    compared = f"{values[k]:.3g} against {values[first]:.3g}"
    return final, f"{top.result.at} has {has}; {decides}: {compared}."


def _told_apart(one: Sequence[bool], other: Sequence[bool]) -> bool:
    """Return whether the first setting orders significantly more pairs rightly."""
    changes = [a - b for a, b in zip(one, other, strict=True)]
    return sign_test(changes.count(1), changes.count(-1)) < _ALIKE


def _judged(finals: Sequence[_Final], field: Field) -> list[float]:
    """Return the judged value of each final setting's answers; 0 where there is nothing to judge.

    Of a knob for both ways it is the difference between its ends.
    """
    n = len(finals)
    if field.judge is None or n < 2:
        return [0.0] * n
    (judge, wanted), evaluator = field.judge, field.evaluator
    prompts = [*dict.fromkeys(pair.prompt for pair in _pairs(field))][:_JUDGED]
    knobs = [
        (field.candidates[f.candidate].composition, tuple(sign * c for c in f.result.coefficients))
        for sign in evaluator.signs
        for f in finals
    ]
    values = [
        judge_answers(judge, prompts, texts, wanted=wanted).value
        for texts in answers_at(evaluator.model, knobs, prompts, TOKENS)
    ]
    return [value - back for value, back in zip(values, values[n:] or [0.0] * n, strict=False)]
