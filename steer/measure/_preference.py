"""Likelihood preference: which of two or more reference answers a model scores highest."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import one_of
from steer.errors import SelectionError
from steer.measure._data import Answers
from steer.measure._estimate import Estimate, mean_of
from steer.measure._interval import Headline, Share, estimate_row
from steer.measure._reduce import Reduce, check_reduce, reduced
from steer.model import Model, check_model
from steer.network import encode_exchange
from steer.pairs import Message, Pair, Pairs, Prompt, as_pairs
from steer.show import Result, Row
from steer.show._text import plain


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Preference(Headline):
    """Likelihood preference on some pairs; `value` is the accuracy, in [0, 1].

    Args:
        chosen: `[pair]`, score of each chosen answer, in nats (per token for mean).
        rejected: `[pair]`, score of each rejected answer, likewise.
        reduce: `mean` or `sum` of the log-probabilities of an answer's tokens.
    """

    chosen: Float[Tensor, " pair"]
    rejected: Float[Tensor, " pair"]
    reduce: Reduce

    @property
    def margins(self) -> Float[Tensor, " pair"]:
        """Score of chosen minus score of rejected, in nats."""
        return self.chosen - self.rejected

    @property
    def accuracy(self) -> Share:
        """Share of pairs whose chosen answer scores higher; a tie counts as wrong."""
        return Share(int((self.margins > 0).sum()), len(self.margins))

    @property
    def hits(self) -> tuple[bool, ...]:
        """For each pair, whether its chosen answer scores higher."""
        return tuple((self.margins > 0).tolist())

    @property
    def margin(self) -> float:
        """Mean margin, in nats."""
        return float(self.margins.mean())

    @property
    def mean_margin(self) -> Estimate:
        """The mean margin with its t interval, in nats."""
        return mean_of(f"margin in nats ({self.reduce} log-probability)", self.margins)

    @property
    def _headline(self) -> Share:
        return self.accuracy

    @property
    def rows(self) -> list[Row]:
        """Two rows: accuracy and mean margin."""
        name = f"preference accuracy ({self.reduce} log-probability)"
        return [estimate_row(name, self.accuracy), *self.mean_margin.rows]

    def __repr__(self) -> str:
        return (
            f"Preference(accuracy {self.accuracy} of {len(self.margins)} pairs, "
            f"margin {self.margin:+.3f} nats, {self.reduce} log-probability)"
        )


def preference(
    model: Model, pairs: Pairs, *, reduce: Reduce = "mean", prefix: Sequence[Message] = ()
) -> Preference:
    """Return the likelihood preference of a model, steered or not, on pairs.

    margin = score(chosen | prompt) − score(rejected | prompt), where the score is the mean or the
    sum of the answer tokens' log-probabilities, teacher-forced.

    Args:
        model: The model; inside `with model.steered(...)` it is measured steered.
        pairs: The pairs, at least one.
        reduce: Mean per token (long and short answers alike), or sum.
        prefix: Messages put before every prompt, for a prompted baseline.

    Returns:
        The margins and their summary.

    Raises:
        ArgumentError: `reduce` is neither mean nor sum.
        SelectionError: There are no pairs, or a log-probability is not finite.
        TextError: A prompt or answer cannot be rendered.
    """
    check_model(model)
    check_reduce(reduce)
    pairs = as_pairs(pairs)
    if len(pairs) == 0:
        raise SelectionError(
            "there is nothing to measure",
            found="no pairs",
            expected="at least one preference pair",
            do="check the split, or the name of the domain",
        )
    chosen, rejected = _scores(model, *sides(pairs), reduce, prefix)
    tied = (chosen == rejected).tolist()
    warn_of_alike(model, [pair for pair, same in zip(pairs, tied, strict=True) if same])
    return Preference(chosen, rejected, reduce)


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
    known = Answers(prompts, answers)
    scores = _scores(model, known.prompts, known.answers, reduce, prefix)
    return LevelPreference(scores.T, tuple(known.answers), reduce)


def _scores(
    model: Model,
    prompts: Sequence[Prompt],
    answers: Mapping[str, Sequence[str]],
    reduce: Reduce,
    prefix: Sequence[Message],
) -> Float[Tensor, "kind prompt"]:
    """Return the score of each prompt's answer of each kind."""
    asked = [with_prefix(prefix, prompt) for prompt in prompts] * len(answers)
    scored = model.logprobs(asked, [text for texts in answers.values() for text in texts])
    scores: Tensor = reduced(scored, reduce).unflatten(0, (len(answers), -1))
    return scores


def sides(pairs: Pairs) -> tuple[list[Prompt], dict[str, list[str]]]:
    """Return the prompts of pairs, and their chosen and rejected answers."""
    answers = {"chosen": [p.chosen for p in pairs], "rejected": [p.rejected for p in pairs]}
    return [pair.prompt for pair in pairs], answers


def with_prefix(prefix: Sequence[Message], prompt: Prompt) -> Prompt:
    """Return a prompt with messages before it; an empty prefix leaves it as it is."""
    if not prefix:
        return prompt
    messages = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    return (*prefix, *messages)


def warn_of_alike(model: Model, tied: Sequence[Pair]) -> None:
    """Warn of tied pairs whose chosen and rejected answer are the same tokens."""
    encoded = (
        [encode_exchange(model.chat, p.prompt, text).ids for text in (p.chosen, p.rejected)]
        for p in tied
    )
    alike = [pair for pair, (a, b) in zip(tied, encoded, strict=True) if a == b]
    if alike:
        warnings.warn(
            f"{len(alike)} pair(s) have the same tokens chosen and rejected, and count as wrong; "
            f"the first: {alike[0].chosen[:40]!r} and {alike[0].rejected[:40]!r}. Can the model's "
            "tokenizer write this language?",
            stacklevel=3,
        )
