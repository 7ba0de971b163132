"""A local model as judge: which of given replies to a question does it find likeliest?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from steer.engine import unsteered
from steer.errors import PairsError, SelectionError, TextError
from steer.measure._judge.protocol import Verdict, filled
from steer.measure._judge.verdicts import said
from steer.measure._reduce import Reduce, check_reduce, reduced
from steer.model import Model
from steer.pairs import Prompt


@dataclass(frozen=True, eq=False, slots=True)
class ModelJudge:
    """Asks a model about an answer and compares the log-probabilities of the replies it may give.

    label = argmax over labels of score(reply | question), where the score is the sum (or mean) of
    the reply's token log-probabilities. No text is generated and none is parsed. Equal scores
    leave the answer undecided. Models lean to some replies whatever the answer: try the judge on
    answers whose label you know before you believe it.

    Args:
        model: The judge. Inside its own `steered` it refuses to judge.
        question: The question, with `{prompt}` and `{answer}` where they belong.
        replies: For each label the text of its reply, at least two; or the labels alone, which are
            then the replies.
        reduce: Sum of a reply's log-probabilities, or mean per token for replies of unequal length.
        batch_size: Answers judged in one call.

    Raises:
        SelectionError: Fewer than two labels, equal replies, or a question without `{answer}`.
    """

    model: Model
    question: str
    replies: Mapping[str, str] | Sequence[str]
    reduce: Reduce = "sum"
    batch_size: int = 64

    def __post_init__(self) -> None:
        check_reduce(self.reduce)
        replies = self.replies
        named = dict(replies) if isinstance(replies, Mapping) else {r: r for r in replies}
        if len(set(named.values())) < max(2, len(replies)) or "{answer}" not in self.question:
            raise SelectionError(
                "a model cannot be asked this",
                found=f"replies {replies!r} to {self.question!r}",
                expected="at least two different replies, and {answer} in the question",
                do="ModelJudge(lm, 'Is this polite? {answer}', ['yes', 'no'])",
            )
        object.__setattr__(self, "replies", named)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it can give."""
        return tuple(self.replies)

    def __call__(self, prompt: Prompt, answer: str, /) -> Verdict:
        """Return the likeliest label; the reply lists the score of each, in nats.

        Args:
            prompt: What was asked.
            answer: What the model answered.

        Raises:
            SteeringError: The judge itself is being steered.
            TextError: The question cannot be rendered.
        """
        return self.many([prompt], [answer])[0]

    def many(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Verdict]:
        """Return what calls would, several at once.

        Args:
            prompts: What was asked, one for each answer.
            answers: What the model answered.

        Returns:
            The verdicts; a question that cannot be rendered costs its own alone.

        Raises:
            SteeringError: The judge itself is being steered.
        """
        unsteered(self.model.engine, "judging")
        asked = [filled(self.question, p, a) for p, a in zip(prompts, answers, strict=True)]
        found: list[Verdict] = []
        for k in range(0, len(asked), self.batch_size):
            found += self._heard(asked[k : k + self.batch_size])
        return found

    def _heard(self, asked: Sequence[str]) -> list[Verdict]:
        """Return the verdicts of a batch, one by one where a question cannot be rendered."""
        try:
            return self._judged(asked)
        except (TextError, PairsError) as error:
            if len(asked) == 1:
                return [Verdict(None, error=said(error))]
            return [verdict for one in asked for verdict in self._heard([one])]

    def _judged(self, asked: Sequence[str]) -> list[Verdict]:
        named = cast(Mapping[str, str], self.replies)
        labels, replies = list(named), list(named.values())
        scored = self.model.logprobs(
            [question for question in asked for _ in replies], replies * len(asked)
        )
        scores = reduced(scored, self.reduce)
        return [_likeliest(labels, row.tolist()) for row in scores.reshape(len(asked), -1)]


def _likeliest(labels: Sequence[str], scores: Sequence[float]) -> Verdict:
    best = max(scores)
    label = labels[scores.index(best)] if scores.count(best) == 1 else None
    named = zip(labels, scores, strict=True)
    return Verdict(label, reply=", ".join(f"{name}: {score:.4f}" for name, score in named))
