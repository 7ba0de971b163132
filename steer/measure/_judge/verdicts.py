"""Verdicts from the values that judges return and the errors that they raise."""

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Real

from steer.errors import JudgeError, SelectionError, SteerError
from steer.measure._judge.protocol import Judge, Label, Verdict
from steer.pairs import Prompt
from steer.show._text import readable

_SHOWN = 200  # characters of an error that are kept


def verdicts_of(
    judge: Judge, prompts: Sequence[Prompt], answers: Sequence[str]
) -> tuple[Verdict, ...]:
    """Return a judge's verdicts; where the call on one answer raises, its verdict has the error."""
    if hasattr(judge, "many"):
        found = _many(judge.many, prompts, answers)
    else:
        found = [_one(judge, p, a) for p, a in zip(prompts, answers, strict=True)]
    if len(found) != len(answers):
        raise SelectionError(
            "a judge returned another number of verdicts",
            found=f"{len(found)} verdicts on {len(answers)} answers",
            expected="one for each answer",
            do="return None where it cannot decide",
        )
    return tuple(_verdict(v) for v in found)


def countable(verdicts: Iterable[Verdict], *, wanted: bool) -> tuple[Verdict, ...]:
    """Return verdicts that can be counted together: all labels, or, if none is wanted, all scores.

    A verdict that is neither becomes an error, unless no verdict is a label or a score.
    """
    given = tuple(verdicts)
    kinds = {type(v.label) for v in given if v.label is not None}
    if kinds and len(kinds & {str, float}) != 1:
        raise SelectionError(
            "a judge returned what cannot be counted",
            found=f"labels of {sorted(kind.__name__ for kind in kinds)}",
            expected="for each answer a label (text), or for each a score (a number), or None",
            do="return 'yes' or 'no' instead of True or False, or 1.0 and 0.0 for a mean score",
        )
    if wanted and float in kinds:
        raise SelectionError(
            "a label is wanted, but the judge gives scores",
            found="scores",
            expected="labels, or wanted=None, which reports the mean score",
            do="omit wanted, or let the judge return a label",
        )
    return tuple(v if isinstance(v.label, str | float | None) else _unusable(v) for v in given)


def error_line(error: BaseException, mask: Callable[[str], str] = str) -> str:
    """Return an error and its cause in one line, masked before it is cut."""
    line = _line(error)
    if error.__cause__ is not None and not isinstance(error, SteerError):
        line += f" (from {_line(error.__cause__)})"
    return mask(line)[:_SHOWN]


def _line(error: BaseException) -> str:
    what = f"{error.what}: {error.found}" if isinstance(error, SteerError) else readable(error)
    return f"{type(error).__name__}: {what}"


def _many(
    many: Callable[..., Iterable[Label | Verdict]],
    prompts: Sequence[Prompt],
    answers: Sequence[str],
) -> list[Label | Verdict]:
    try:
        return list(many(prompts, answers))
    except SteerError:
        raise
    except Exception as error:
        raise JudgeError(
            "the judge raised",
            found=error_line(error),
            expected="a label, a score or None for each answer",
            do="call judge.many(prompts, answers) by itself",
        ) from error


def _one(judge: Judge, prompt: Prompt, answer: str) -> Label | Verdict:
    try:
        return judge(prompt, answer)
    except Exception as error:
        if isinstance(error, SteerError) and not isinstance(error, JudgeError):
            raise
        return Verdict(None, error=error_line(error))  # every number of the result reports it


def _verdict(found: Label | Verdict) -> Verdict:
    """Return a verdict with a label of plain `str` or `float`, where it is a text or a number."""
    verdict = found if isinstance(found, Verdict) else Verdict(found)
    reply, error = _text(verdict.reply), _text(verdict.error)
    label: object = verdict.label
    if isinstance(label, str):
        return Verdict(str.__str__(label), reply, error)
    if isinstance(label, bool) or not isinstance(label, Real):
        return Verdict(verdict.label, reply, error)
    try:
        number = float(label)
    except OverflowError:
        number = math.inf
    return Verdict(number, reply, error) if math.isfinite(number) else _unusable(verdict)


def _unusable(verdict: Verdict) -> Verdict:
    """Return the failed verdict for a value that is neither a label nor a finite score."""
    label: object = verdict.label
    kind = f"{type(label).__name__} {readable(label)}"[:_SHOWN]
    return Verdict(None, _text(verdict.reply), f"neither a label nor a finite score: {kind}")


def _text(value: object) -> str | None:
    if isinstance(value, BaseException):
        return error_line(value)
    return value if isinstance(value, str | None) else readable(value)
