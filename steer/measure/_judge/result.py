"""Judged answers: the verdict on each, and the shares and scores of all."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from steer._check import as_list
from steer.errors import ArgumentError, JudgeError, SelectionError
from steer.measure._estimate import Estimate, mean_of
from steer.measure._interval import Headline, Share, ShareChange, estimate_row
from steer.measure._judge.protocol import Judge, Label, Verdict
from steer.measure._judge.verdicts import countable, error_line, verdicts_of
from steer.measure._preference import with_prefix
from steer.model import Model
from steer.network import as_prompts
from steer.pairs import Message, Prompt
from steer.show import Row
from steer.show._text import readable

Wanted = str | Sequence[str] | None
_SHOWN = 80  # characters of an error in a table


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Judged(Headline):
    """Answers with a judge's verdict on each.

    `value` is the accuracy if a label is wanted, else the mean score. Every number raises
    `JudgeError` while answers are without a verdict: see `again`.

    Args:
        prompts: The prompts.
        answers: The answers.
        verdicts: The verdicts.
        wanted: The label wanted of each answer; None without one (scores, or shares only).
    """

    prompts: tuple[Prompt, ...]
    answers: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    wanted: tuple[str, ...] | None = None

    @property
    def failed(self) -> int:
        """The number of answers without a verdict, because the judge failed."""
        return sum(verdict.error is not None for verdict in self.verdicts)

    @property
    def hits(self) -> tuple[bool, ...]:
        """For each answer, whether it has the wanted label; an undecided one does not.

        Raises:
            SelectionError: No label is wanted.
        """
        if self.wanted is None:
            raise SelectionError(
                "there is no accuracy without a wanted label",
                found="wanted=None",
                expected=f"one of {sorted(map(str, self.labels))}, or one label per answer",
                do="judge with wanted=…, or ask for share(label)",
            )
        self.check_complete()
        return tuple(v.label == w for v, w in zip(self.verdicts, self.wanted, strict=True))

    @property
    def accuracy(self) -> Share:
        """The share of answers with the wanted label; undecided ones count as wrong."""
        return Share(sum(self.hits), len(self.hits))

    @property
    def score(self) -> Estimate:
        """The mean score with its t interval; undecided answers are left out."""
        self.check_complete()
        scores = [float(v.label) for v in self.verdicts if isinstance(v.label, float | int)]
        return mean_of("judged score", scores)

    @property
    def labels(self) -> tuple[Label, ...]:
        """The labels given, the most frequent first."""
        given = [v.label for v in self.verdicts if isinstance(v.label, str)]
        return tuple(sorted(set(given), key=lambda label: (-given.count(label), label)))

    def share(self, label: Label) -> Share:
        """Return the share of answers with a label; None stands for undecided ones.

        Args:
            label: The label.
        """
        self.check_complete()
        return Share(sum(v.label == label for v in self.verdicts), len(self.verdicts))

    def again(self, judge: Judge, *, give_up: bool = False) -> "Judged":
        """Return a copy in which answers without a verdict are judged again.

        Args:
            judge: The judge.
            give_up: Whether an answer that fails again counts as undecided, with the error as its
                reply.

        Raises:
            JudgeError: The judge cannot be asked at all.
            SelectionError: Its verdicts cannot be counted together with the others.
        """
        missing = [k for k, v in enumerate(self.verdicts) if v.error is not None]
        if not missing:
            return self
        new = verdicts_of(
            judge, [self.prompts[k] for k in missing], [self.answers[k] for k in missing]
        )
        merged = dict(enumerate(self.verdicts)) | dict(zip(missing, new, strict=True))
        found = countable(merged.values(), wanted=self.wanted is not None)
        return replace(self, verdicts=tuple(map(_undecided, found)) if give_up else found)

    def change_from(self, before: "Judged") -> ShareChange | Estimate:
        """Return the change of the accuracy, or of the score if no label is wanted, item by item.

        Args:
            before: The judged answers to the same prompts under another condition.

        Raises:
            SelectionError: No label is wanted, and no item has a score both times.
            JudgeError: Some answers were not judged.
        """
        if self.wanted is not None:
            return ShareChange.of(before.hits, self.hits)
        before.check_complete()
        self.check_complete()
        return mean_of("change of judged score", self._differences(before))

    def comparable(self, before: "Judged") -> bool:
        """Return whether `change_from` is defined.

        Args:
            before: The judged answers to the same prompts under another condition.
        """
        if before.failed or self.failed:
            return False
        return self.wanted is not None or bool(self._differences(before))

    @property
    def rows(self) -> list[Row]:
        """The accuracy, if a label is wanted, or the score; then one row per label."""
        if self.failed:
            first = next(v.error for v in self.verdicts if v.error is not None)
            lost = Share(self.failed, len(self.verdicts))
            return [estimate_row(f"not judged ({first[:_SHOWN]})", lost)]
        rows = []
        if self.wanted is not None:
            rows.append(estimate_row("judged accuracy", self.accuracy))
        elif any(isinstance(v.label, float | int) for v in self.verdicts):
            rows += self.score.rows
        for label in (*self.labels, None):
            name = "undecided" if label is None else label
            rows.append(estimate_row(f"judged {name}", self.share(label)))
        return rows

    @property
    def items(self) -> list[dict[str, Any]]:
        """One dictionary per answer: prompt, answer, label, wanted, reply and error."""
        wanted: Sequence[str | None] = self.wanted or [None] * len(self.answers)
        return [
            {"prompt": p, "answer": a, "label": v.label, "wanted": w}
            | {"reply": v.reply, "error": v.error}
            for p, a, v, w in zip(self.prompts, self.answers, self.verdicts, wanted, strict=True)
        ]

    @property
    def _headline(self) -> Share | Estimate:
        return self.score if self.wanted is None else self.accuracy

    def _differences(self, before: "Judged") -> list[float]:
        """Return the change of each item's score, where both are decided."""
        return [
            float(b.label) - float(a.label)
            for a, b in zip(before.verdicts, self.verdicts, strict=True)
            if isinstance(a.label, int | float) and isinstance(b.label, int | float)
        ]

    def check_complete(self) -> None:
        """Raise `JudgeError` if some answers have no verdict."""
        errors = [v.error for v in self.verdicts if v.error is not None]
        if errors:
            raise JudgeError(
                "some answers were not judged, and leaving them out could be misleading",
                found=f"{len(errors)} of {len(self.verdicts)}; the first: {errors[0]}",
                expected="a verdict on every answer",
                do="judge them again: found = found.again(judge); with give_up=True an answer that "
                "fails again counts as undecided",
            )


def check_wanted(judge: Judge, wanted: Wanted, n: int) -> tuple[str, ...] | None:
    """Return the label wanted of each of n answers; refuse what the judge cannot give."""
    if wanted is None:
        return None
    each = [wanted] * n if isinstance(wanted, str) else as_list("labels", wanted)
    known = getattr(judge, "labels", each)
    unknown = sorted(set(each) - set(known))
    if unknown or len(each) != n:
        raise ArgumentError(
            "the judge cannot give the wanted labels",
            found=f"{len(each)} labels for {n} answers, unknown: {unknown}",
            expected=f"one label or one for each answer, among {list(dict.fromkeys(known))}"[:200],
            do="name a label of the judge, or omit wanted",
        )
    return tuple(each)


def judge_answers(
    judge: Judge, prompts: Sequence[Prompt], answers: Sequence[str], *, wanted: Wanted = None
) -> Judged:
    """Return a judge's verdicts on answers.

    An answer has no verdict if the judge raises, cannot be reached, or returns neither a label nor
    a finite score. Such answers are kept with the error; numbers are refused until `again` has
    judged them.

    Args:
        judge: The judge: a function of prompt and answer, or a judge of this package.
        prompts: The prompts, one for each answer.
        answers: The answers, at least one.
        wanted: The label wanted, or one for each answer.

    Returns:
        Every answer with its verdict, and their shares.

    Raises:
        ArgumentError: No answers, an answer that is not a text, numbers that differ, or a wanted
            label that the judge cannot give.
        SelectionError: A judge that never returns a label or a score, or returns both.
    """
    prompts, answers = as_prompts(prompts), as_list("answers", answers)
    if not answers or len(prompts) != len(answers):
        raise ArgumentError(
            "there is nothing to judge, or numbers differ",
            found=f"{len(prompts)} prompts, {len(answers)} answers",
            expected="at least one answer, and a prompt for each",
            do="repeat a prompt for each of its answers",
        )
    _check_texts(answers)
    each = check_wanted(judge, wanted, len(answers))
    try:
        verdicts = verdicts_of(judge, prompts, answers)
    except JudgeError as error:
        verdicts = (Verdict(None, error=error_line(error)),) * len(answers)
    verdicts = countable(verdicts, wanted=each is not None)
    return Judged(tuple(prompts), tuple(answers), verdicts, each)


def judged_accuracy(
    model: Model,
    prompts: Sequence[Prompt],
    judge: Judge,
    *,
    wanted: Wanted,
    prefix: Sequence[Message] = (),
    batch_size: int | None = None,
    **options: Any,
) -> Judged:
    """Return how often a model's own answers have the wanted label.

    accuracy = share of generated answers with label = wanted. It measures what the model writes,
    while `preference` measures what it finds likely; they need not agree.

    Args:
        model: The model; inside `with model.steered(...)` it is measured steered.
        prompts: The prompts, at least one.
        judge: The judge.
        wanted: The label wanted, or one for each prompt; None for a judge that gives scores.
        prefix: Messages put before every prompt, for a prompted baseline.
        batch_size: Prompts answered at once, all by default.
        **options: As for `model.generate`: `max_new_tokens`, `do_sample`, …

    Returns:
        Every answer with its verdict, and their shares.

    Raises:
        ArgumentError: A wanted label that the judge cannot give, or see `judge_answers`.
        SelectionError: See `judge_answers`.
        TextError: A prompt cannot be rendered.
    """
    prompts = as_prompts(prompts)
    each = check_wanted(judge, wanted, len(prompts))
    asked = [with_prefix(prefix, prompt) for prompt in prompts]
    answers = model.generate(asked, batch_size=batch_size, **options)
    return judge_answers(judge, prompts, answers, wanted=each)


def _check_texts(answers: Sequence[object]) -> None:
    for k, answer in enumerate(answers):
        if not isinstance(answer, str):
            raise ArgumentError(
                f"answer {k} (counted from 0) is not a text",
                found=f"{type(answer).__name__} {readable(answer)}"[:200],
                expected="a str for each answer",
                do="judge texts; omit answers that were not generated",
            )


def _undecided(verdict: Verdict) -> Verdict:
    if verdict.error is None:
        return verdict
    return Verdict(None, reply=f"not judged: {verdict.error}")
