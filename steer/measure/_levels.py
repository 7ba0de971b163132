"""Which of several reference answers the model finds likeliest: k-level preference accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import as_list
from steer.errors import SelectionError
from steer.measure._interval import Share
from steer.measure._preference import with_prefix
from steer.measure._reduce import Reduce, check_reduce, reduced
from steer.measure._table import estimate_row
from steer.model import Model, check_model
from steer.network._text import as_prompts
from steer.pairs import Message, Prompt
from steer.show import Result, Row


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class LevelPreference(Result):
    """Scores of each prompt's reference answers.

    Args:
        scores: `[prompt level]`, score of each answer, in nats (per token for mean).
        levels: Names of the columns.
        reduce: Whether an answer's score is the mean or the sum of its tokens' log-probabilities.
    """

    scores: Float[Tensor, "prompt level"]
    levels: tuple[str, ...]
    reduce: Reduce

    def accuracy(self, level: str) -> Share:
        """Return the share of prompts whose likeliest answer is the one of a level.

        A tie counts as wrong.

        Args:
            level: One of `levels`.

        Raises:
            SelectionError: There is no such level.
        """
        if level not in self.levels:
            raise SelectionError(
                "unknown level",
                found=repr(level),
                expected=" | ".join(self.levels),
                do="name one of these",
            )
        column = self.levels.index(level)
        others = torch.cat([self.scores[:, :column], self.scores[:, column + 1 :]], dim=1)
        wins = self.scores[:, column] > others.max(dim=1).values
        return Share(int(wins.sum()), len(wins))

    @property
    def rows(self) -> list[Row]:
        """One row per level: the share of prompts whose likeliest answer is of that level."""
        shares = {level: self.accuracy(level) for level in self.levels}
        return [
            estimate_row(
                f"{level} likeliest ({self.reduce} log-probability)", s.value, s.interval, s.n
            )
            for level, s in shares.items()
        ]

    def __repr__(self) -> str:
        from steer.show._text import plain

        shares = ", ".join(f"{level} {self.accuracy(level).value:.1%}" for level in self.levels)
        of = f"of {len(self.scores)} prompts, {self.reduce} log-prob."
        return f"LevelPreference({plain(shares, 240)} {of})"


def level_preference(
    model: Model,
    prompts: Sequence[Prompt],
    answers: Mapping[str, Sequence[str]],
    *,
    reduce: Reduce = "mean",
    prefix: Sequence[Message] = (),
) -> LevelPreference:
    """Return how likely a model, steered or not, finds the answers of each level.

    accuracy(level) = share of prompts with score(level) above all other scores, where the score
    is the mean or sum of log p(token | prompt, tokens before), teacher-forced.

    Args:
        model: The model; inside `with model.steered(...)` it is measured steered.
        prompts: The prompts, at least one.
        answers: For each of at least two levels, one reference answer per prompt.
        reduce: Mean per token (long and short answers alike), or sum.
        prefix: Messages put before every prompt, for a prompted baseline.

    Returns:
        The scores and their summary.

    Raises:
        SelectionError: No prompts, fewer than two levels, answers of another number, a
            `reduce` that is neither, or a log-probability that is not finite.
        TextError: A prompt or answer cannot be rendered.

    Reference:
        The likelihood preference accuracy of arXiv 2410.19206; whether it takes mean or sum is
        not known, so it is an argument.
    """
    check_model(model)
    check_reduce(reduce)
    prompts = as_prompts(prompts)
    answers = {level: as_list(f"answers of {level!r}", texts) for level, texts in answers.items()}
    counts = {level: len(texts) for level, texts in answers.items()}
    if not prompts or len(counts) < 2 or set(counts.values()) != {len(prompts)}:
        raise SelectionError(
            "levels cannot be compared",
            found=f"{len(prompts)} prompts, answers by level: {counts}",
            expected="at least one prompt, and one answer of each of two or more levels for it",
            do="give every level as many answers as there are prompts",
        )
    asked = [with_prefix(prefix, prompt) for prompt in prompts] * len(answers)
    scored = model.logprobs(asked, [text for texts in answers.values() for text in texts])
    scores = reduced(scored, reduce)
    return LevelPreference(scores.reshape(len(answers), -1).T, tuple(answers), reduce)
