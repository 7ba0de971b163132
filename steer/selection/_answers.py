"""Answers before and after steering, and what a judge and the topic say of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from steer.algebra import Composition
from steer.measure import Estimate, Judge, Judged, Share, judge_answers, likelihoods, repetition
from steer.measure._answers import answers_at
from steer.measure._scores import at
from steer.model import Model
from steer.pairs import Prompt

ASKED, TOKENS = 6, 32  # prompts that are answered, and the length of the answers
_REPEATED = 0.1  # rise of the share of repeated 4-grams that is warned of
_FEWEST, _OTHERS = 3, 5  # prompts that topic is measured among, and others that one is held to


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """The greedy answers to one prompt of a test pair, without and with steering."""

    prompt: Prompt
    before: str
    after: str


@dataclass(frozen=True, eq=False, slots=True)
class Visible:
    """Answers to some test prompts, with judged share and share on topic before and after.

    `on_topic` is the share that the unsteered model finds likelier after their own prompt than
    after any other, None for fewer than three prompts; `judge_error` the error of a judge that
    knows its own, on held-out answers.
    """

    answers: tuple[AnswerPair, ...]
    judged: tuple[Judged, Judged] | None = None
    on_topic: tuple[Share, Share] | None = None
    judge_error: Share | None = None

    @property
    def changed(self) -> Share:
        """The share of answers whose text changed at all."""
        return Share(sum(a.before != a.after for a in self.answers), len(self.answers))

    @property
    def repetition(self) -> tuple[Estimate, Estimate]:
        """The share of an answer's 4-grams of words that it holds before, before and after."""
        texts = [a.before for a in self.answers], [a.after for a in self.answers]
        return repetition(texts[0]), repetition(texts[1])

    @property
    def repetitive(self) -> bool:
        """Whether answers repeat themselves more than before, by a tenth of their 4-grams."""
        before, after = self.repetition
        return after.value - before.value >= _REPEATED

    def __str__(self) -> str:
        if not self.changed.hits:
            return f"No visible change: {len(self.answers)} answers are the same word for word."
        said = f"{self.changed.hits} of {len(self.answers)} answers changed"
        if self.judged is not None:
            said += f"; judged {_before_after(self.judged)}"
        if self.judge_error is not None:
            said += f", by a judge that is wrong on {self.judge_error.value:.0%} of held-out texts"
        if self.on_topic is not None:
            said += f"; on topic {_before_after(self.on_topic)}"
        return f"{said}; repeated 4-grams {_before_after(self.repetition)}."


def _before_after(found: tuple[Judged | Share | Estimate, Judged | Share | Estimate]) -> str:
    return "{:.0%} before and {:.0%} after".format(*(one.value for one in found))


def visible(
    model: Model,
    setting: Composition,
    prompts: Sequence[Prompt],
    judge: tuple[Judge, str | None] | None,
) -> Visible:
    """Answer prompts without and with a setting."""
    asked = list(dict.fromkeys(prompts))[:ASKED]
    before, after = answers_at(model, [at(setting, 0.0), at(setting)], asked, TOKENS)
    pairs = tuple(AnswerPair(*found) for found in zip(asked, before, after, strict=True))
    shares = None
    if len(asked) >= _FEWEST:
        hits = on_topic(model, setting, asked * 2, before + after)
        n = len(asked)
        shares = Share(sum(hits[:n]), n), Share(sum(hits[n:]), n)
    if judge is None:
        return Visible(pairs, None, shares)
    one, wanted = judge
    found = [judge_answers(one, asked, texts, wanted=wanted) for texts in (before, after)]
    error = getattr(one, "error", None)
    known = error if isinstance(error, Share) else None
    return Visible(pairs, (found[0], found[1]), shares, known)


def on_topic(
    model: Model, knob: Composition, prompts: Sequence[Prompt], answers: Sequence[str]
) -> list[bool]:
    """Return for each answer whether it is likelier after its own prompt than after five others.

    The unsteered model scores it by the mean log-probability of its tokens; an empty answer fails.
    On SmolLM2-135M-Instruct, with 14 everyday questions, all 14 unsteered answers of 32 tokens
    passed and 13 of 14 that were steered to be cheerful; of answers to another question 10% passed
    with five others, and 26% with two.
    """
    different = list(dict.fromkeys(prompts))
    turns = range(min(_OTHERS + 1, len(different)))
    asked: dict[tuple[Prompt, str], int] = {}
    places = []
    for prompt, answer in zip(prompts, answers, strict=True):
        own = different.index(prompt)
        both = [(different[(own + step) % len(different)], answer) for step in turns]
        places.append([asked.setdefault(b, len(asked)) for b in both] if answer.strip() else None)
    if not asked:
        return [False] * len(answers)
    zero = torch.zeros(1, len(knob.domains))
    exchanges = [prompt for prompt, _ in asked], [answer for _, answer in asked]
    scores = [float(row.mean()) for row in likelihoods(model, knob, zero, *exchanges).logprobs]
    return [k is not None and scores[k[0]] > max(scores[i] for i in k[1:]) for k in places]
