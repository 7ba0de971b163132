"""Functions that take a model first refuse anything else there, by name."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import steer
from steer.errors import ArgumentError
from tests.tiny import tiny_model, tiny_tokenizer

PAIRS = steer.Pairs.of([steer.Pair("Q", "a", "b"), steer.Pair("R", "a", "b")])
VECTOR = steer.Vector.of({0: torch.ones(32)})
PROMPTS = {"a": ["Q"], "b": ["R"]}
CALLS: dict[str, Callable[[Any, Any], object]] = {
    "record": lambda lm, pairs: steer.record(lm, pairs),
    "packing_report": lambda lm, pairs: steer.packing_report(lm),
    "preference": lambda lm, pairs: steer.preference(lm, pairs),
    "level_preference": lambda lm, pairs: steer.level_preference(lm, pairs, {}),
    "neutral_text": lambda lm, pairs: steer.neutral_text(lm, pairs),
    "kl_divergence": lambda lm, pairs: steer.kl_divergence(lm, pairs),
    "domain_gate": lambda lm, pairs: steer.domain_gate(lm, pairs, layer=0),
    "routing_accuracy": lambda lm, pairs: steer.routing_accuracy(lm, pairs, PROMPTS),
    "select": lambda lm, pairs: steer.select(lm, VECTOR, pairs),
    "sweep": lambda lm, pairs: steer.sweep(lm, VECTOR, pairs, [0.0, 1.0]),
    "calibrate": lambda lm, pairs: steer.calibrate(lm, pairs, 0.1),
    "compare_at_kl": lambda lm, pairs: steer.compare_at_kl(lm, {"a": VECTOR}, pairs, 0.1),
    "preference_tune": lambda lm, pairs: steer.preference_tune(lm, pairs),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_model_comes_first(name: str) -> None:
    lm = steer.Model(tiny_model("llama"), tiny_tokenizer())
    for first in (PAIRS, lm.hf_model, "demo", None):
        with pytest.raises(ArgumentError, match="first argument is no model") as caught:
            CALLS[name](first, lm)
        assert type(first).__name__ in str(caught.value)
