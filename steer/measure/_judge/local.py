"""A local model as judge: the likeliest of given replies to a question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from steer._check import integer
from steer.engine import unsteered
from steer.errors import PairsError, TextError
from steer.measure._judge.protocol import BatchJudge, Verdict, check_question, filled
from steer.measure._judge.verdicts import error_line
from steer.measure._reduce import Reduce, check_reduce, reduced
from steer.model import Model
from steer.pairs import Prompt


@dataclass(frozen=True, eq=False, slots=True)
class ModelJudge(BatchJudge):
    """Asks a model about an answer and compares the log-probabilities of the possible replies.

    label = argmax over labels of score(reply | question), where the score is the sum (or mean) of
    the reply's token log-probabilities. No text is generated and none is parsed. Equal scores
    leave the answer undecided. Models favour some replies whatever the answer: try the judge on
    answers whose label you know before you trust it.

    Args:
        model: The judge; it must not be steered while it judges.
        question: The question, with `{prompt}` and `{answer}` where they belong.
        replies: For each label the text of its reply, at least two; or only the labels, which are
            then the replies.
        reduce: Sum of a reply's log-probabilities, or mean per token for replies of unequal length.
        batch_size: Answers judged in one call.

    Raises:
        ArgumentError: Fewer than two labels, equal replies, a question without `{answer}`, an
            unknown `reduce`, or a batch size below 1.
    """

    model: Model
    question: str
    replies: Mapping[str, str] | Sequence[str]
    reduce: Reduce = "sum"
    batch_size: int = 64

    def __post_init__(self) -> None:
        check_reduce(self.reduce)
        integer("batch_size", self.batch_size, least=1)
        replies = self.replies
        named = dict(replies) if isinstance(replies, Mapping) else {r: r for r in replies}
        example = "ModelJudge(lm, 'Is this polite? {answer}', ['yes', 'no'])"
        check_question(self.question, replies, len(set(named.values())), example)
        object.__setattr__(self, "replies", named)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it can give."""
        return tuple(self.replies)

    def many(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Verdict]:
        """Return the likeliest label of each answer; the reply lists all scores, in nats.

        Args:
            prompts: The prompts, one for each answer.
            answers: The model's answers.

        Returns:
            The verdicts; where a question cannot be rendered, its verdict holds the error.

        Raises:
            SteeringError: The judge itself is being steered.
        """
        unsteered(self.model.engine, "judging")
        asked = [filled(self.question, p, a) for p, a in zip(prompts, answers, strict=True)]
        found: list[Verdict] = []
        for k in range(0, len(asked), self.batch_size):
            found += self._batch(asked[k : k + self.batch_size])
        return found

    def _batch(self, asked: Sequence[str]) -> list[Verdict]:
        """Return the verdicts of a batch, one by one where a question cannot be rendered."""
        try:
            return self._judged(asked)
        except (TextError, PairsError) as error:
            if len(asked) == 1:
                return [Verdict(None, error=error_line(error))]
            return [verdict for one in asked for verdict in self._batch([one])]

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
