"""What cannot be scored is refused or warned of, by every function that scores answers."""

import pytest
import torch

import steer
from steer.errors import ArgumentError, SelectionError, TextError
from steer.measure import (
    ModelJudge,
    level_preference,
    neutral_text,
    off_target,
    preference,
    steerability,
)
from steer.pairs import Pair, Pairs
from tests.tiny import tiny_model, tiny_tokenizer

PAIRS = Pairs.of([Pair("how are you", "fine", "no"), Pair("who", "the sea", "a boat")])
VECTOR = steer.Vector.of({1: torch.linspace(-1, 1, 32)})
LONG = Pairs.of([Pair("how", "fine", "no"), Pair("the sea " * 40, "wide", "no")])


@pytest.fixture(scope="module")
def lm():
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


CALLS = {
    "preference": lambda lm, **how: preference(lm, PAIRS, **how),
    "level_preference": lambda lm, **how: level_preference(
        lm, ["who"], {"a": ["fine"], "b": ["no"]}, **how
    ),
    "sweep": lambda lm, **how: steer.sweep(lm, VECTOR, PAIRS, [0.0, 1.0], progress=False, **how),
    "off_target": lambda lm, **how: off_target(lm, VECTOR, PAIRS, **how),
    "steerability": lambda lm, **how: steerability(lm, VECTOR, PAIRS, **how),
    "select": lambda lm, **how: steer.select(
        lm, VECTOR, PAIRS + PAIRS, neutral=["who"], progress=False, **how
    ),
    "ModelJudge": lambda lm, **how: ModelJudge(lm, "{answer}?", ["yes", "no"], **how)("p", "a"),
}


@pytest.mark.parametrize("reduce", ["max", "median", "nope"])
@pytest.mark.parametrize("name", CALLS)
def test_scores_are_means_or_sums(lm, name, reduce):
    with pytest.raises(ArgumentError, match=rf"reduce='{reduce}'(.|\n)*'mean' \| 'sum'"):
        CALLS[name](lm, reduce=reduce)


@pytest.mark.parametrize("name", ["preference", "level_preference", "ModelJudge", "off_target"])
def test_scores_that_are_not_finite_are_refused(name):
    lm = steer.Model(tiny_model("llama"), tiny_tokenizer())
    with torch.no_grad():
        lm.architecture.unembedding.weight[3] = torch.nan
    with pytest.raises(SelectionError, match="not finite"):
        CALLS[name](lm)


@pytest.mark.parametrize(
    "measure",
    [lambda lm, pairs: preference(lm, pairs), lambda lm, pairs: steerability(lm, VECTOR, pairs)],
)
def test_pairs_of_equal_tokens_are_warned_of(lm, measure):
    unknown = Pairs.of([Pair("how are you", "好", "坏"), *PAIRS])
    with pytest.warns(UserWarning, match=r"1 pair\(s\) have the same tokens.*'好' and '坏'"):
        measure(lm, unknown)


@pytest.mark.parametrize("family", ["gpt2", "opt"])
@pytest.mark.parametrize(
    "call",
    [
        lambda lm: preference(lm, LONG),
        lambda lm: steer.sweep(lm, VECTOR, LONG, [0.0], progress=False),
        lambda lm: neutral_text(lm, ["the sea " * 40], responses=["wide"]),
        lambda lm: lm.generate(["the sea " * 40]),
        lambda lm: lm.activations(["the sea " * 40]),
    ],
)
def test_texts_beyond_the_positions_of_a_model_are_named(family, call):
    lm = steer.Model(tiny_model(family, max_position_embeddings=64), tiny_tokenizer())
    with pytest.raises(TextError, match=r"tokens, prompt 'the sea(.|\n)*at most \d+ tokens"):
        call(lm)


def test_texts_beyond_rotary_positions_are_warned_of_once():
    lm = steer.Model(tiny_model("llama", max_position_embeddings=64), tiny_tokenizer())
    with pytest.warns(UserWarning, match="longer than the") as caught:
        preference(lm, LONG)
    assert len(caught) == 1
