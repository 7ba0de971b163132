"""Answers before and after: what a chosen setting does to the text that people read."""

from collections.abc import Sequence
from dataclasses import dataclass

from steer.composition import Composition
from steer.evaluate.interval import Share
from steer.evaluate.judge.protocol import Judge
from steer.evaluate.judge.result import Judged, judge_answers
from steer.model import Model
from steer.pairs import Prompt
from steer.selection.kernel import answers_at, at

ASKED, TOKENS = 6, 32  # prompts that are answered, and the length of the answers


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """The greedy answers to one prompt.

    Args:
        prompt: The prompt, of a test pair.
        before: The answer of the unsteered model.
        after: The answer at the chosen setting.
    """

    prompt: Prompt
    before: str
    after: str


@dataclass(frozen=True, eq=False, slots=True)
class Visible:
    """What can be seen of a setting in the text.

    Args:
        answers: The answers to some test prompts.
        judged: What a judge found about those answers, before and after; None without a judge.
    """

    answers: tuple[AnswerPair, ...]
    judged: tuple[Judged, Judged] | None = None

    @property
    def changed(self) -> Share:
        """The share of answers whose text changed at all."""
        return Share(sum(a.before != a.after for a in self.answers), len(self.answers))

    def __str__(self) -> str:
        if not self.changed.hits:
            return f"No visible change: {len(self.answers)} answers are the same word for word."
        said = f"{self.changed.hits} of {len(self.answers)} answers changed"
        if self.judged is None:
            return f"{said}."
        before, after = (f"{found.value:.0%}" for found in self.judged)
        return f"{said}; judged {before} before and {after} after."


def visible(
    model: Model,
    setting: Composition,
    prompts: Sequence[Prompt],
    judge: tuple[Judge, str | None] | None,
) -> Visible:
    """Answer prompts without and with a setting.

    Args:
        model: The model; it must not be steered.
        setting: The composition at the coefficients chosen.
        prompts: Prompts that took no part in choosing; some of them are answered.
        judge: A judge of answers, and the label that is wanted; None without one.
    """
    asked = list(dict.fromkeys(prompts))[:ASKED]
    before, after = answers_at(model, [at(setting(0.0)), at(setting)], asked, TOKENS)
    pairs = tuple(AnswerPair(*found) for found in zip(asked, before, after, strict=True))
    if judge is None:
        return Visible(pairs)
    one, wanted = judge
    found = [judge_answers(one, asked, texts, wanted=wanted) for texts in (before, after)]
    return Visible(pairs, (found[0], found[1]))
