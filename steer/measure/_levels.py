"""k-level preference accuracy: which of several reference answers a model finds likeliest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import as_list, one_of
from steer.errors import SelectionError
from steer.measure._interval import Share, estimate_row
from steer.measure._preference import with_prefix
from steer.measure._reduce import Reduce, check_reduce, reduced
from steer.model import Model, check_model
from steer.network import as_prompts
from steer.pairs import Message, Prompt
from steer.show import Result, Row
from steer.show._text import plain


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class LevelPreference(Result):
    """Scores of each prompt's reference answers.

    Args:
        scores: `[prompt level]`, score of each answer, in nats (per token for mean).
        levels: Names of the columns.
        reduce: `mean` or `sum` of the log-probabilities of an answer's tokens.
    """

    scores: Float[Tensor, "prompt level"]
    levels: tuple[str, ...]
    reduce: Reduce

    def accuracy(self, level: str) -> Share:
        """Return the share of prompts whose likeliest answer is that of a level; ties are wrong.

        Args:
            level: One of `levels`.

        Raises:
            ArgumentError: There is no such level.
        """
        column = self.levels.index(one_of("level", level, self.levels))
        others = torch.cat([self.scores[:, :column], self.scores[:, column + 1 :]], dim=1)
        wins = self.scores[:, column] > others.max(dim=1).values
        return Share(int(wins.sum()), len(wins))

    @property
    def rows(self) -> list[Row]:
        """One row per level: the share of prompts whose likeliest answer is of that level."""
        unit = f"({self.reduce} log-probability)"
        return [estimate_row(f"{lv} likeliest {unit}", self.accuracy(lv)) for lv in self.levels]

    def __repr__(self) -> str:
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
        ArgumentError: `reduce` is neither mean nor sum.
        SelectionError: No prompts, fewer than two levels, another number of answers than prompts,
            or a log-probability that is not finite.
        TextError: A prompt or answer cannot be rendered.

    Reference:
        The likelihood preference accuracy of arXiv 2410.19206, which does not say whether it takes
        the mean or the sum.
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
            do="give every level one answer for each prompt",
        )
    asked = [with_prefix(prefix, prompt) for prompt in prompts] * len(answers)
    scored = model.logprobs(asked, [text for texts in answers.values() for text in texts])
    scores = reduced(scored, reduce)
    return LevelPreference(scores.reshape(len(answers), -1).T, tuple(answers), reduce)
