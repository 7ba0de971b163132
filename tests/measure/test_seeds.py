"""A seed that no generator takes is refused at once, by whatever draws."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import steer
from steer.algebra import Dense, Weight
from steer.errors import ArgumentError
from steer.measure._baselines import random_like
from steer.report import report
from tests.tiny import tiny_model, tiny_tokenizer

LM = steer.Model(tiny_model("llama"), tiny_tokenizer())
PAIRS = steer.Pairs.of(steer.Pair(f"Is it {k}?", "yes it is", "no") for k in range(8))
VECTOR = steer.Vector.of({1: torch.ones(LM.d_model)})
WEIGHT = steer.Vector({Weight("w"): Dense(torch.ones(4, 4))})
DRAWS: dict[str, Callable[[Any], object]] = {
    "random_like": lambda seed: random_like(VECTOR, seed),
    "dare": lambda seed: steer.dare(WEIGHT, 0.5, seed),
    "select": lambda seed: steer.select(LM, VECTOR, PAIRS, seed=seed, progress=False),
    "report": lambda seed: report(LM, VECTOR, PAIRS, seed=seed, progress=False),
    "preference_tune": lambda seed: steer.preference_tune(LM, PAIRS, seed=seed, progress=False),
}


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1, "1", None, 1.0, True], ids=repr)
@pytest.mark.parametrize("name", DRAWS)
def test_a_seed_that_nothing_takes_is_refused(name: str, seed: Any) -> None:
    with pytest.raises(ArgumentError, match="seed must be an integer"):
        DRAWS[name](seed)


@pytest.mark.parametrize("name", ["random_like", "dare"])
def test_every_seed_of_64_bits_is_taken(name: str) -> None:
    for seed in (2**63 - 1, -(2**63)):
        DRAWS[name](seed)
