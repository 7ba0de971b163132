"""The protocol of a judge: a call from a prompt and an answer to a label or a score."""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from steer.errors import ArgumentError
from steer.network import PromptLike, as_prompt
from steer.pairs import Prompt

Label = str | float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict of a judge on one answer.

    Args:
        label: A name or a score; None where the judge could not decide.
        reply: What the judge said, word for word, or the scores that it decided by, if there is
            more than the label.
        error: Why there is no verdict at all, for instance a broken connection.
    """

    label: Label
    reply: str | None = None
    error: str | None = None


class Judge(Protocol):
    """A judge: one call from a prompt and an answer to a label or a score.

    A function is a judge: `lambda prompt, answer: "short" if len(answer) < 80 else "long"`. A label
    names the kind of an answer; which label is wanted is said where answers are judged. None means
    that the judge cannot decide; such an answer counts as one that is not wanted. A judge gives
    either labels or scores (floats, whose mean is reported), never both.

    A judge may also have a method `many(prompts, answers)` that returns a list and is then called
    instead, and an attribute `labels`, the labels that it can give.
    """

    def __call__(self, prompt: Prompt, answer: str, /) -> Label | Verdict:
        """Return the label or score of an answer.

        Args:
            prompt: The prompt.
            answer: The model's answer.
        """


class BatchJudge(ABC):
    """Base of judges whose call is `many` of one answer."""

    __slots__ = ()

    @abstractmethod
    def many(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Verdict]:
        """Return the verdict on each answer.

        Args:
            prompts: The prompts, one for each answer.
            answers: The model's answers.
        """

    def __call__(self, prompt: Prompt, answer: str, /) -> Verdict:
        """Return the verdict on one answer.

        Args:
            prompt: The prompt.
            answer: The model's answer.
        """
        return self.many([prompt], [answer])[0]


def prompt_text(prompt: PromptLike) -> str:
    """Return a prompt as one text: messages as lines of role and content."""
    known = as_prompt(prompt)
    if isinstance(known, str):
        return known
    return "\n".join(f"{message.role}: {message.content}" for message in known)


def filled(question: str, prompt: PromptLike, answer: str) -> str:
    """Return a judge's question with `{prompt}` and `{answer}` filled in; other braces stay."""
    texts: Mapping[str, str] = {"{prompt}": prompt_text(prompt), "{answer}": answer}
    return re.sub(r"\{(?:prompt|answer)\}", lambda match: texts[match[0]], question)


def check_question(question: str, replies: Collection[str], different: int, do: str) -> None:
    """Refuse a question without `{answer}`, or with fewer than two different replies."""
    if different < max(2, len(replies)) or "{answer}" not in question:
        raise ArgumentError(
            "a judge cannot be asked this",
            found=f"replies {replies!r} to {question!r}",
            expected="at least two different replies, and {answer} in the question",
            do=do,
        )
