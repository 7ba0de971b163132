"""Likelihood preference: how often a model scores the chosen answer above the rejected one."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from steer.errors import SelectionError
from steer.measure._estimate import Estimate, mean_of
from steer.measure._interval import Share, estimate_row
from steer.measure._reduce import Reduce, check_reduce, reduced
from steer.model import Model, check_model
from steer.network import encode_exchange
from steer.pairs import Message, Pair, Pairs, Prompt, as_pairs
from steer.show import Result, Row


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Preference(Result):
    """Likelihood preference on some pairs.

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
    def value(self) -> float:
        """The accuracy, in [0, 1]."""
        return self.accuracy.value

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% Wilson interval of the accuracy."""
        return self.accuracy.interval

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
    prompts = [with_prefix(prefix, pair.prompt) for pair in pairs]
    answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    scored = model.logprobs(prompts + prompts, answers)
    chosen, rejected = reduced(scored, reduce).chunk(2)
    tied = (chosen == rejected).tolist()
    warn_of_alike(model, [pair for pair, same in zip(pairs, tied, strict=True) if same])
    return Preference(chosen, rejected, reduce)


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
