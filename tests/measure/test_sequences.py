"""A text is not a sequence of letters, and any iterable is gone through once."""

import pytest
import torch

import steer
from steer.errors import ArgumentError
from steer.measure import (
    Answers,
    degeneration,
    judge_answers,
    judged_accuracy,
    level_preference,
    neutral_text,
    perplexity,
    preference,
    reliability,
    repetition,
    steerability,
)
from steer.pairs import Pair, Pairs
from steer.selection import calibrate
from tests.tiny import tiny_model, tiny_tokenizer

PAIRS = Pairs.of([Pair("how are you", "fine", "no"), Pair("who", "the sea", "a boat")])
VECTOR = steer.Vector.of({1: torch.linspace(-1, 1, 32)})
TEXTS = ["the sea the sea", "a boat"]
LEVELS = {"a": ["fine", "fine"], "b": ["no", "no"]}


def polite(prompt, answer):
    return "yes"


@pytest.fixture(scope="module")
def lm():
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


@pytest.mark.parametrize(
    "call",
    [
        lambda lm: neutral_text(lm, "Hello there"),
        lambda lm: neutral_text(lm, ["how"], responses="f"),
        lambda lm: perplexity(lm, ["how"], "f"),
        lambda lm: calibrate(lm, VECTOR, 0.1, neutral="hello"),
        lambda lm: judged_accuracy(lm, "hi", polite, wanted="yes"),
        lambda lm: judge_answers(polite, "hi", "ab"),
        lambda lm: degeneration("hello"),
        lambda lm: repetition("hello"),
        lambda lm: level_preference(lm, ["how", "who"], {"a": "xy", "b": "no"}),
        lambda lm: Answers(["how", "who"], {"a": "xy", "b": "no"}),
        lambda lm: preference(lm, "ab"),
        lambda lm: steer.sweep(lm, VECTOR, PAIRS, "01"),
        lambda lm: steerability(lm, VECTOR, PAIRS, "01"),
        lambda lm: steerability(lm, VECTOR, PAIRS, 0.5),
    ],
)
def test_one_text_is_not_taken_for_its_letters(lm, call):
    with pytest.raises(ArgumentError, match=r"must be a sequence(.|\n)*put a single one in a list"):
        call(lm)


@pytest.mark.parametrize(
    "call",
    [
        lambda lm, it: preference(lm, it(PAIRS)).margin,
        lambda lm, it: list(steer.sweep(lm, VECTOR, PAIRS, it([0, 1]), progress=False).rows),
        lambda lm, it: judge_answers(polite, it(TEXTS), it(TEXTS), wanted=it(["yes", "no"])).value,
        lambda lm, it: judged_accuracy(lm, it(TEXTS), polite, wanted="yes").value,
        lambda lm, it: neutral_text(lm, it(TEXTS)).responses,
        lambda lm, it: neutral_text(lm, it(TEXTS), responses=it(TEXTS)).responses,
        lambda lm, it: steerability(lm, VECTOR, it(PAIRS), it([0, 1])).value,
        lambda lm, it: degeneration(it(TEXTS)).value,
        lambda lm, it: level_preference(
            lm, it(TEXTS), {k: it(v) for k, v in LEVELS.items()}
        ).scores.tolist(),
        lambda lm, it: reliability(lm, it(PAIRS)).pairs,
    ],
)
def test_any_iterable_is_gone_through_once(lm, call):
    assert call(lm, lambda values: (value for value in values)) == call(lm, list)
