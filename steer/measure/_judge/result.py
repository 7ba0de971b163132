"""What judges found about generated answers: shares, and every item."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from steer._check import as_list
from steer.errors import JudgeError, SelectionError
from steer.measure._estimate import Estimate, mean_of
from steer.measure._interval import Share
from steer.measure._judge.protocol import Judge, Label, LabelJudge, Verdict
from steer.measure._judge.verdicts import countable, said, verdicts_of
from steer.measure._preference import with_prefix
from steer.measure._table import estimate_row
from steer.model import Model
from steer.network._text import as_prompts
from steer.pairs import Message, Prompt
from steer.show import Result, Row
from steer.show._text import readable

Wanted = str | Sequence[str] | None
_SHOWN = 80  # characters of an error in a table


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Judged(Result):
    """Answers and what a judge found about each.

    Args:
        prompts: What was asked.
        answers: What was answered.
        verdicts: What the judge found.
        wanted: The label wanted of each answer; None if none is (scores, or shares alone).
    """

    prompts: tuple[Prompt, ...]
    answers: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    wanted: tuple[str, ...] | None = None

    @property
    def failed(self) -> int:
        """Answers that the judge was not heard about."""
        return sum(verdict.error is not None for verdict in self.verdicts)

    @property
    def hits(self) -> tuple[bool, ...]:
        """Of each answer whether it has the label wanted; an undecided one has not.

        Raises:
            SelectionError: No label is wanted.
            JudgeError: Some answers were not judged.
        """
        if self.wanted is None:
            raise SelectionError(
                "there is no accuracy without a label that is wanted",
                found="wanted=None",
                expected=f"one of {sorted(map(str, self.labels))}, or one label per answer",
                do="judge with wanted=…, or ask for share(label)",
            )
        self.check_heard()
        return tuple(v.label == w for v, w in zip(self.verdicts, self.wanted, strict=True))

    @property
    def accuracy(self) -> Share:
        """The share of answers that have the label wanted; undecided ones count as wrong.

        Raises:
            SelectionError: No label is wanted.
            JudgeError: Some answers were not judged.
        """
        return Share(sum(self.hits), len(self.hits))

    @property
    def score(self) -> Estimate:
        """The mean score with its t interval; undecided answers are left out.

        Raises:
            SelectionError: The judge gave no scores.
            JudgeError: Some answers were not judged.
        """
        self.check_heard()
        scores = [float(v.label) for v in self.verdicts if isinstance(v.label, float | int)]
        return mean_of("judged score", scores)

    @property
    def value(self) -> float:
        """The accuracy where a label is wanted, else the mean score.

        Raises:
            SelectionError: There is neither.
            JudgeError: Some answers were not judged.
        """
        return self._found.value

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of `value`."""
        return self._found.interval

    @property
    def labels(self) -> tuple[Label, ...]:
        """The labels that were given, the most frequent first."""
        given = [v.label for v in self.verdicts if isinstance(v.label, str)]
        return tuple(sorted(set(given), key=lambda label: (-given.count(label), label)))

    def share(self, label: Label) -> Share:
        """Return the share of answers with a label; None asks for undecided ones.

        Args:
            label: The label.

        Raises:
            JudgeError: Some answers were not judged.
        """
        self.check_heard()
        return Share(sum(v.label == label for v in self.verdicts), len(self.verdicts))

    def again(self, judge: Judge, *, give_up: bool = False) -> "Judged":
        """Return the same with those answers judged again that the judge was not heard about.

        Args:
            judge: The judge.
            give_up: Whether what fails again counts as undecided; its reply then says why.

        Raises:
            JudgeError: The judge cannot be asked at all.
            SelectionError: What it returns cannot be counted with the verdicts that there are.
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

    @property
    def rows(self) -> list[Row]:
        """The accuracy, if a label is wanted, or the score; then one row per label."""
        if self.failed:
            lost = Share(self.failed, len(self.verdicts))
            first = next(v.error for v in self.verdicts if v.error is not None)
            name = f"not judged ({first[:_SHOWN]})"
            return [estimate_row(name, lost.value, lost.interval, lost.n)]
        rows = []
        if self.wanted is not None:
            accuracy = self.accuracy
            name = "judged accuracy"
            rows.append(estimate_row(name, accuracy.value, accuracy.interval, accuracy.n))
        elif any(isinstance(v.label, float | int) for v in self.verdicts):
            rows += self.score.rows
        for label in (*self.labels, None):
            share = self.share(label)
            name = "judged undecided" if label is None else f"judged {label}"
            rows.append(estimate_row(name, share.value, share.interval, share.n))
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
    def _found(self) -> Share | Estimate:
        return self.score if self.wanted is None else self.accuracy

    def check_heard(self) -> None:
        """Refuse answers that the judge was not heard about.

        Raises:
            JudgeError: There are some.
        """
        errors = [v.error for v in self.verdicts if v.error is not None]
        if errors:
            raise JudgeError(
                "some answers were not judged, and leaving them out could mislead",
                found=f"{len(errors)} of {len(self.verdicts)}; the first: {errors[0]}",
                expected="a verdict on every answer",
                do="judge these again: found = found.again(judge); with give_up=True what fails "
                "again counts as undecided",
            )


def check_wanted(judge: Judge, wanted: Wanted, n: int) -> None:
    """Refuse labels that cannot be what a judge gives, before anything is generated.

    Args:
        judge: The judge; one with a tuple `labels` gives no others.
        wanted: The label wanted, or one for each answer.
        n: Answers that will be judged.

    Raises:
        SelectionError: Another number of labels than answers, or a label that it never gives.
    """
    if wanted is None:
        return
    each = [wanted] * n if isinstance(wanted, str) else wanted
    known = judge.labels if isinstance(judge, LabelJudge) else each
    unknown = sorted(set(each) - set(known))
    if unknown or len(each) != n:
        raise SelectionError(
            "the judge cannot give what is wanted",
            found=f"{len(each)} labels for {n} answers, unknown: {unknown}",
            expected=f"one label or one for each answer, among {list(dict.fromkeys(known))}"[:200],
            do="name a label of the judge, or leave wanted out",
        )


def judge_answers(
    judge: Judge, prompts: Sequence[Prompt], answers: Sequence[str], *, wanted: Wanted = None
) -> Judged:
    """Return what a judge finds about answers.

    A judge was not heard on an answer if it raises, cannot be reached, or returns neither a label
    nor a finite score there: the answers are kept with its errors, no number is made of them, and
    `again` asks once more.

    Args:
        judge: The judge: a function of prompt and answer, or one of those of this package.
        prompts: What was asked, one for each answer.
        answers: The answers, at least one.
        wanted: The label wanted, or one for each answer.

    Returns:
        The verdicts with their shares; every item is kept.

    Raises:
        SelectionError: No answers, one that is no text, numbers that differ, or a judge that never
            returns a label or a score, or returns both.
    """
    prompts, answers = as_prompts(prompts), as_list("answers", answers)
    wanted = wanted if wanted is None or isinstance(wanted, str) else as_list("labels", wanted)
    each = [wanted] * len(answers) if isinstance(wanted, str) else wanted
    counts = {len(prompts), len(answers), len(answers if each is None else each)}
    if not answers or len(counts) != 1:
        raise SelectionError(
            "there is nothing to judge, or numbers differ",
            found=f"{len(prompts)} prompts, {len(answers)} answers, wanted {wanted!r}"[:200],
            expected="at least one answer, a prompt for each, and one label or one for each",
            do="repeat a prompt for each of its answers",
        )
    _check_texts(answers)
    try:
        verdicts = verdicts_of(judge, prompts, answers)
    except JudgeError as error:
        verdicts = (Verdict(None, error=said(error)),) * len(answers)
    verdicts = countable(verdicts, wanted=each is not None)
    return Judged(tuple(prompts), tuple(answers), verdicts, None if each is None else tuple(each))


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
    """Return how often a model's own answers have the label that is wanted.

    accuracy = share of generated answers with label = wanted. It says what the model writes, where
    `preference` says what it finds likely; they need not agree.

    Args:
        model: The model; inside `with model.steered(...)` it is measured steered.
        prompts: The prompts, at least one.
        judge: The judge.
        wanted: The label wanted, or one for each prompt; None for a judge that gives scores.
        prefix: Messages put before every prompt, for a prompted baseline.
        batch_size: Prompts answered at once, all by default.
        **options: As for `model.generate`: `max_new_tokens`, `do_sample`, …

    Returns:
        The verdicts with their shares; every item is kept.

    Raises:
        SelectionError: See `judge_answers`.
        TextError: A prompt cannot be rendered.
    """
    prompts = as_prompts(prompts)
    if wanted is not None and not isinstance(wanted, str):
        wanted = as_list("labels", wanted)
    check_wanted(judge, wanted, len(prompts))
    asked = [with_prefix(prefix, prompt) for prompt in prompts]
    answers = model.generate(asked, batch_size=batch_size, **options)
    return judge_answers(judge, prompts, answers, wanted=wanted)


def _check_texts(answers: Sequence[object]) -> None:
    for k, answer in enumerate(answers):
        if not isinstance(answer, str):
            raise SelectionError(
                f"answer {k} (counted from 0) is no text",
                found=f"{type(answer).__name__} {readable(answer)}"[:200],
                expected="a str for each answer",
                do="judge texts; leave out what was not generated",
            )


def _undecided(verdict: Verdict) -> Verdict:
    if verdict.error is None:
        return verdict
    return Verdict(None, reply=f"not judged: {verdict.error}")
