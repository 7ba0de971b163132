"""From what judges return, or raise, to verdicts that can be counted together."""

from collections.abc import Callable, Iterable, Sequence
from numbers import Real

from steer.errors import JudgeError, SelectionError, SteerError
from steer.evaluate.judge.protocol import BatchJudge, Judge, Label, Verdict
from steer.pairs import Prompt

_SHOWN = 200  # characters of an error that are kept


def verdicts_of(
    judge: Judge, prompts: Sequence[Prompt], answers: Sequence[str]
) -> tuple[Verdict, ...]:
    """Return what a judge finds; where it raises, the verdict holds the error.

    Args:
        judge: The judge.
        prompts: What was asked, one for each answer.
        answers: What the model answered.

    Raises:
        JudgeError: A judge of many answers at once raised, or cannot be asked at all.
        SelectionError: It returned another number of verdicts.
        SteerError: It cannot be used like this, for instance inside its own `steered`.
    """
    if isinstance(judge, BatchJudge):
        found = _many(judge, prompts, answers)
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


def check_countable(verdicts: Iterable[Verdict], *, wanted: bool) -> None:
    """Refuse verdicts that cannot be counted together.

    Args:
        verdicts: The verdicts.
        wanted: Whether a label is wanted.

    Raises:
        SelectionError: Labels beside scores, something else than either, or scores where a label
            is wanted.
    """
    kinds = {type(v.label) for v in verdicts if v.label is not None}
    if not (kinds <= {float} or kinds == {str}):
        raise SelectionError(
            "a judge returned what cannot be counted",
            found=f"labels of {sorted(kind.__name__ for kind in kinds)}",
            expected="for each answer a label (text), or for each a score (a number), or None",
            do="return 'yes' or 'no' in place of True or False, or 1.0 and 0.0 for a mean score",
        )
    if wanted and float in kinds:
        raise SelectionError(
            "a label is wanted, but the judge gives scores",
            found="scores",
            expected="labels, or wanted=None, which reports the mean score",
            do="leave wanted out, or let the judge return a label",
        )


def said(error: BaseException, mask: Callable[[str], str] = str) -> str:
    """Return an error in one line, with the error that it came from.

    Args:
        error: The error.
        mask: Applied before the line is cut.
    """
    line = _line(error)
    if error.__cause__ is not None and not isinstance(error, SteerError):
        line += f" (from {_line(error.__cause__)})"
    return mask(line)[:_SHOWN]


def _line(error: BaseException) -> str:
    try:
        what = f"{error.what}: {error.found}" if isinstance(error, SteerError) else str(error)
    except Exception:  # noqa: BLE001  # a message that raises
        what = "its message cannot be read"
    return f"{type(error).__name__}: {what}"


def _many(
    judge: BatchJudge, prompts: Sequence[Prompt], answers: Sequence[str]
) -> Sequence[Label | Verdict]:
    try:
        return judge.many(prompts, answers)
    except SteerError:
        raise
    except Exception as error:
        raise JudgeError(
            "the judge raised",
            found=said(error),
            expected="a label, a score or None for each answer",
            do="call judge.many(prompts, answers) by itself",
        ) from error


def _one(judge: Judge, prompt: Prompt, answer: str) -> Label | Verdict:
    try:
        return judge(prompt, answer)
    except SteerError as error:
        if not isinstance(error, JudgeError):
            raise
        return Verdict(None, error=said(error))
    except Exception as error:  # noqa: BLE001  # kept, and said by every number asked for
        return Verdict(None, error=said(error))


def _verdict(found: Label | Verdict) -> Verdict:
    """Return a verdict whose label is a plain text or a float, where it is one of their kind."""
    verdict = found if isinstance(found, Verdict) else Verdict(found)
    label: object = verdict.label
    if isinstance(label, str):
        return Verdict(str.__str__(label), verdict.reply, verdict.error)
    if isinstance(label, bool) or not isinstance(label, Real):
        return verdict
    return Verdict(float(label), verdict.reply, verdict.error)
