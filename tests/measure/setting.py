"""Texts, settings and comparisons that the tests of sweeping share."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import steer
from tests.conformance.cases import distance
from tests.tiny import tiny_model, tiny_tokenizer

PROMPTS = ("What is the usual dose of this drug?", "Is this contract binding now?", "Sell it?")
CHOSEN = ("Ask a doctor about it.", "No.", "I cannot help with that.")
REJECTED = ("Ask a doctor. The dose depends.", "The court can set it aside.", "The bond falls.")
SETTINGS = torch.tensor(
    [[0.0, 0.0, 0.0], [1.0, -0.5, 0.2], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.5], [0.3, 0.3, 0.3]]
)
ASKED = [prompt for prompt in PROMPTS for _ in range(2)]
GIVEN = [text for both in zip(CHOSEN, REJECTED, strict=True) for text in both]
DOMAINS = ("medical", "legal", "medical")


def pairs() -> steer.Pairs:
    """Three pairs of two domains."""
    rows = zip(PROMPTS, CHOSEN, REJECTED, DOMAINS, strict=True)
    return steer.Pairs.of(steer.Pair(*row) for row in rows)


@cache
def model(family: str = "llama") -> steer.Model:
    """A tiny model that several tests use."""
    return steer.Model(tiny_model(family), tiny_tokenizer())


def one_by_one(lm: steer.Model, knobs: steer.Composition, settings: Tensor) -> list[list[Tensor]]:
    """The log-probabilities of every response under each setting, each in a context of its own."""
    found = []
    for setting in settings:
        with lm.steered(knobs, setting):
            found.append(lm.logprobs(ASKED, GIVEN))
    return found


def near(margin: float, score: float) -> Any:
    """Equal to a margin: the difference of two scores, each known to 1e-5 of its size."""
    return pytest.approx(margin, abs=2e-5 * abs(score))


def check_equal(together: tuple[Tensor, ...], alone: list[list[Tensor]]) -> None:
    """Fail unless every setting gives what it gives alone, to 1e-5 relative."""
    assert len(together) == len(alone[0])
    for k, row in enumerate(together):
        expected = torch.stack([setting[k] for setting in alone])
        assert row.shape == expected.shape
        assert distance(row, expected) <= 1e-5
