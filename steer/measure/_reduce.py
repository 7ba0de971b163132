"""Scores of answers: the mean or the sum of the log-probabilities of their tokens."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import one_of
from steer.errors import SelectionError

Reduce = Literal["mean", "sum"]


def check_reduce(reduce: str) -> None:
    """Refuse a reduction other than mean and sum."""
    one_of(
        "reduce",
        reduce,
        get_args(Reduce),
        do="'mean' per token compares long and short answers fairly, 'sum' is the log-likelihood",
    )


def reduced(
    logprobs: Sequence[Float[Tensor, "*setting pos"]], reduce: Reduce, *, finite: bool = True
) -> Float[Tensor, "*setting pair"]:
    """Return the score of each answer in float64 nats; unless `finite`, it may overflow."""
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
