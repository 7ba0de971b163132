"""What a judge is: one call from a prompt and an answer to a label or a score."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from steer.network._text import PromptLike, as_prompt
from steer.pairs import Prompt

Label = str | float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge found about one answer.

    Args:
        label: A name or a score; None where the judge could not decide.
        reply: What the judge said, word for word, or the scores it decided by, if there is more
            than the label.
        error: Why the judge was not heard at all, for instance a connection that broke.
    """

    label: Label
    reply: str | None = None
    error: str | None = None


class Judge(Protocol):
    """One method: from a prompt and an answer to a label, or to a score.

    A function is a judge: `lambda prompt, answer: "short" if len(answer) < 80 else "long"`. A label
    names what the answer is; which label is wanted is said where answers are judged. None means
    that the judge cannot decide; such an answer counts as one that is not wanted. A judge gives
    either labels or scores (floats, of which the mean is reported), never both.
    """

    def __call__(self, prompt: Prompt, answer: str, /) -> Label | Verdict:
        """Return the label or score of an answer.

        Args:
            prompt: What was asked.
            answer: What the model answered.
        """


@runtime_checkable
class BatchJudge(Protocol):
    """A judge that is faster on many answers at once: it has this method besides its call."""

    def many(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Sequence[Label | Verdict]:
        """Return the label or score of each answer.

        Args:
            prompts: What was asked, one for each answer.
            answers: What the model answered.
        """


@runtime_checkable
class LabelJudge(Protocol):
    """A judge that says which labels it can give."""

    @property
    def labels(self) -> Sequence[str]:
        """The labels; it may leave an answer undecided besides."""


def prompt_text(prompt: PromptLike) -> str:
    """Return a prompt as one text: messages as lines of role and content.

    Args:
        prompt: A text or messages.

    Raises:
        TextError: It is neither.
    """
    known = as_prompt(prompt)
    if isinstance(known, str):
        return known
    return "\n".join(f"{message.role}: {message.content}" for message in known)


def filled(question: str, prompt: PromptLike, answer: str) -> str:
    """Return a judge's question with `{prompt}` and `{answer}` filled in; other braces stay.

    Args:
        question: The question.
        prompt: What was asked.
        answer: What the model answered.
    """
    texts: Mapping[str, str] = {"{prompt}": prompt_text(prompt), "{answer}": answer}
    return re.sub(r"\{(?:prompt|answer)\}", lambda match: texts[match[0]], question)
