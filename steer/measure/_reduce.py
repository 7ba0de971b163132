"""From log-probabilities of tokens to the score of an answer."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steer.errors import SelectionError

Reduce = Literal["mean", "sum"]


def check_reduce(reduce: str) -> None:
    """Refuse what is neither mean nor sum, before anything is computed.

    Args:
        reduce: How scores are to be made of tokens.

    Raises:
        SelectionError: It is something else.
    """
    if reduce not in get_args(Reduce):
        raise SelectionError(
            "answers cannot be scored like this",
            found=f"reduce={reduce!r}",
            expected=" | ".join(get_args(Reduce)),
            do="'mean' per token treats long and short answers alike, 'sum' is the likelihood",
        )


def reduced(
    logprobs: Sequence[Float[Tensor, "*setting pos"]], reduce: Reduce, *, finite: bool = True
) -> Tensor:
    """Return the score of each answer: mean or sum over its tokens, in float64.

    Args:
        logprobs: Of each answer `[pos]` or `[setting pos]`, in nats.
        reduce: Which.
        finite: Whether scores that are not finite are refused; if not, a setting that overflows
            has NaN or infinite ones.

    Returns:
        `[pair]` or `[setting pair]`, in nats (per token for mean).

    Raises:
        SelectionError: `reduce` is neither, or a log-probability is not finite.
    """
    check_reduce(reduce)
    rows = [row.double() for row in logprobs]
    bad = [k for k, row in enumerate(rows) if not bool(torch.isfinite(row).all())]
    if finite and bad:
        raise SelectionError(
            "answers have log-probabilities that are not finite",
            found=f"{len(bad)} of {len(rows)} answers, the first number {bad[0]} (from 0)",
            expected="a finite log-probability of every token",
            do="try smaller coefficients or another precision, and look at the model's logits",
        )
    scores = [row.mean(dim=-1) if reduce == "mean" else row.sum(dim=-1) for row in rows]
    return torch.stack(scores, dim=-1)
