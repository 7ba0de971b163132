"""What is relative to the unsteered model refuses one that is being steered."""

from collections.abc import Callable

import pytest
import torch

import steer
from steer import measure
from steer.alignment import preference_tune
from steer.errors import SteeringError
from steer.extract import routing_accuracy
from steer.measure import sweep
from steer.report import report
from steer.selection import calibrate, compare_at_kl
from tests.letters import letter_pairs
from tests.tiny import tiny_model, tiny_tokenizer

LM = steer.Model(tiny_model("llama"), tiny_tokenizer())
VECTOR = steer.Vector.of({2: torch.ones(32)})
PAIRS = letter_pairs(12)
TEXT = steer.neutral_text(LM, ["how are you"], max_new_tokens=3)
HALVES = {"vector": PAIRS}
PROMPTS = {"a": ["how are you"], "b": ["what is it"]}
GATE = steer.domain_gate(LM, PROMPTS, layer=1)

CALLS: dict[str, Callable[[], object]] = {
    "select": lambda: steer.select(LM, VECTOR, PAIRS, neutral=TEXT, progress=False),
    "select many": lambda: steer.select(LM, VECTOR, HALVES, neutral=None, progress=False),
    "sweep": lambda: sweep(LM, VECTOR, PAIRS, [0.5], progress=False),
    "sweep of a function": lambda: sweep(
        LM, VECTOR, PAIRS, [0.5], measure=lambda lm, part: {"n": 1.0}, progress=False
    ),
    "calibrate": lambda: calibrate(LM, VECTOR, 0.1, neutral=TEXT),
    "compare_at_kl": lambda: compare_at_kl(LM, {"v": VECTOR}, PAIRS, 0.1, neutral=TEXT),
    "neutral_text": lambda: steer.neutral_text(LM, ["how are you"], max_new_tokens=3),
    "neutral_text given": lambda: steer.neutral_text(LM, ["hello"], responses=["fine"]),
    "baselines": lambda: measure.baselines(LM, VECTOR, PAIRS, instruction="say b"),
    "baselines beside": lambda: measure.baselines(
        steer.Model(tiny_model("llama", seed=1), tiny_tokenizer()),
        VECTOR,
        PAIRS,
        instruction="say b",
        tuned=LM,
    ),
    "reliability": lambda: measure.reliability(LM, PAIRS),
    "steerability": lambda: measure.steerability(LM, VECTOR, PAIRS),
    "off_target": lambda: measure.off_target(LM, VECTOR, PAIRS),
    "report": lambda: report(LM, VECTOR, HALVES, neutral=TEXT, progress=False),
    "preference_tune": lambda: preference_tune(LM, PAIRS, steps=1, progress=False),
    "record": lambda: steer.record(LM, PAIRS, progress=False),
    "domain_gate": lambda: steer.domain_gate(LM, PROMPTS, layer=1),
    "routing_accuracy": lambda: routing_accuracy(LM, GATE, PROMPTS),
    "a judge": lambda: measure.ModelJudge(LM, "{answer}?", ["yes", "no"])("hello", "fine"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_steered_model_is_refused(name: str) -> None:
    with LM.steered(VECTOR, 0.5), pytest.raises(SteeringError, match="is being steered"):
        CALLS[name]()


def test_another_name_of_the_same_model_is_seen_too() -> None:
    other = steer.Model(LM.hf_model, LM.tokenizer)
    with other.steered(VECTOR, 0.5), pytest.raises(SteeringError, match="is being steered"):
        CALLS["select"]()


def test_a_model_that_was_steered_is_not_refused() -> None:
    with LM.steered(VECTOR, 0.5):
        pass
    assert CALLS["neutral_text"]().responses == TEXT.responses  # type: ignore[attr-defined]
