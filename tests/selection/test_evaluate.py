"""Measures against textbook computations on a tiny random model."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import steer
from steer.errors import ArgumentError, SelectionError
from steer.measure import (
    Share,
    kl_divergence,
    level_preference,
    neutral_text,
    preference,
    wilson,
)
from steer.network import encode_exchange
from tests.tiny import tiny_model, tiny_tokenizer

PROMPTS = ("how are you", "what is this", "tell me more about the sea")


@pytest.fixture(scope="module")
def lm():
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


@pytest.fixture(scope="module")
def pairs():
    answers = [("a good day to you", "no"), ("it is a boat", "a b c"), ("water", "the wind blows")]
    return steer.Pairs.of(
        steer.Pair(p, c, r, "sea") for p, (c, r) in zip(PROMPTS, answers, strict=True)
    )


def textbook_logprobs(lm, prompt, response):
    exchange = encode_exchange(lm.tokenizer, prompt, response)
    ids = torch.tensor([exchange.ids])
    with torch.no_grad():
        logits = lm.hf_model(ids).logits[0].double()
    table = torch.log_softmax(logits, dim=-1)
    start = exchange.response_start
    return torch.stack([table[i - 1, exchange.ids[i]] for i in range(start, len(exchange.ids))])


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_preference_is_the_difference_of_answer_scores(lm, pairs, reduce):
    found = preference(lm, pairs, reduce=reduce)
    expected = [
        getattr(textbook_logprobs(lm, pair.prompt, pair.chosen), reduce)()
        - getattr(textbook_logprobs(lm, pair.prompt, pair.rejected), reduce)()
        for pair in pairs
    ]
    assert torch.allclose(found.margins, torch.stack(expected), atol=1e-4)
    assert found.accuracy.hits == sum(float(m) > 0 for m in expected)
    assert found.reduce == reduce


def test_swapping_the_answers_negates_the_margins(lm, pairs):
    forth, back = preference(lm, pairs), preference(lm, pairs.swap())
    assert torch.allclose(forth.margins, -back.margins, atol=1e-6)


def test_preference_needs_pairs(lm, pairs):
    with pytest.raises(SelectionError, match="no pairs"):
        preference(lm, pairs[:0])


def test_scoring_in_pieces_equals_scoring_at_once(lm, pairs, monkeypatch):
    whole = preference(lm, pairs).margins
    monkeypatch.setattr("steer.model._model._TOKENS", 16)
    assert torch.allclose(preference(lm, pairs).margins, whole, atol=1e-5)


def test_kl_of_the_unsteered_model_is_zero_and_grows_with_the_coefficient(lm):
    text = neutral_text(lm, PROMPTS, max_new_tokens=6)
    vector = steer.Vector.of({1: torch.ones(32)})
    assert kl_divergence(lm, text).value == pytest.approx(0.0, abs=1e-6)
    found = []
    for coefficient in (0.05, 0.2, 0.8):
        with lm.steered(vector, coefficient):
            found.append(kl_divergence(lm, text).value)
    assert 0 < found[0] < found[1] < found[2]


def test_kl_is_the_textbook_sum(lm):
    text = neutral_text(lm, PROMPTS[:1], max_new_tokens=5)
    vector = steer.Vector.of({2: torch.linspace(-1, 1, 32)})
    with lm.steered(vector, 0.7):
        found = kl_divergence(lm, text).value
        steered = lm.logits(text.prompts, text.responses)[0].double()
    p, u = (torch.softmax(x, dim=-1) for x in (steered, text.logits[0].double()))
    assert found == pytest.approx(float((p * (p / u).log()).sum(dim=-1).mean()), rel=1e-4)


def test_neutral_text_needs_continuations(lm, monkeypatch):
    monkeypatch.setattr(type(lm), "generate", lambda self, prompts, **_: [" "] * len(prompts))
    with pytest.raises(SelectionError, match="continues no neutral prompt"):
        neutral_text(lm, PROMPTS)


@given(n=st.integers(1, 500), data=st.data())
def test_wilson_holds_the_share_and_stays_in_range(n, data):
    hits = data.draw(st.integers(0, n))
    low, high = wilson(hits, n)
    assert 0 <= low <= hits / n + 1e-12
    assert hits / n - 1e-12 <= high <= 1
    assert Share(hits, n).value == hits / n


def test_wilson_agrees_with_a_published_value():
    low, high = wilson(8, 10)  # 95% score interval of 8 in 10
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))


LEVELS = {
    "low": ("no", "the sea", "a b"),
    "middle": ("a good day", "a boat", "water"),
    "high": ("you are well today", "it is the sea", "the wind blows water"),
}


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_the_likeliest_level_is_the_textbook_argmax(lm, reduce):
    found = level_preference(lm, PROMPTS, LEVELS, reduce=reduce)
    table = torch.tensor(
        [
            [
                getattr(textbook_logprobs(lm, prompt, texts[i]), reduce)()
                for texts in LEVELS.values()
            ]
            for i, prompt in enumerate(PROMPTS)
        ]
    )
    assert torch.allclose(found.scores, table.double(), atol=1e-4)
    best = [list(LEVELS)[i] for i in table.argmax(dim=1).tolist()]
    for level in LEVELS:
        assert found.accuracy(level) == Share(best.count(level), 3)


def test_two_levels_are_the_pairwise_preference(lm, pairs):
    answers = {"chosen": [p.chosen for p in pairs], "rejected": [p.rejected for p in pairs]}
    levels = level_preference(lm, [pair.prompt for pair in pairs], answers)
    assert levels.accuracy("chosen") == preference(lm, pairs).accuracy


def test_a_tie_is_no_win(lm):
    same = level_preference(lm, PROMPTS, {"a": ("no",) * 3, "b": ("no",) * 3})
    assert same.accuracy("a").hits == same.accuracy("b").hits == 0


def test_levels_that_cannot_be_compared_are_refused(lm):
    for answers in ({"a": ("no",) * 3}, {"a": ("no",) * 3, "b": ("no",)}, {}):
        with pytest.raises(SelectionError, match="levels cannot be compared"):
            level_preference(lm, PROMPTS, answers)
    with pytest.raises(ArgumentError, match="level is not one of"):
        level_preference(lm, PROMPTS, LEVELS).accuracy("highest")
