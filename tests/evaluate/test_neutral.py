"""KL with an interval, and perplexity, against computations in full."""

import math

import pytest
import torch

import steer
from steer.errors import TextError
from steer.evaluate import kl_divergence, kl_per_token, neutral_text, perplexity, preference
from steer.evaluate.preference import Preference
from tests.tiny import tiny_model, tiny_tokenizer

PROMPTS = ("how are you", "what is this", "tell me more about the sea")
GIVEN = ("fine", "a boat on the sea", "it is wide and the wind blows over it")


@pytest.fixture(scope="module")
def lm():
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


@pytest.fixture(scope="module")
def given_text(lm):
    return neutral_text(lm, PROMPTS, responses=GIVEN)


@pytest.fixture(scope="module")
def vector():
    return steer.Vector.of({2: torch.linspace(-1, 1, 32)})


def test_the_estimate_is_the_old_number_with_texts_as_items(lm, given_text, vector):
    with lm.steered(vector, 0.7):
        old, new = kl_per_token(lm, given_text), kl_divergence(lm, given_text)
        parts = [
            kl_per_token(lm, neutral_text_of(given_text, k)) for k in range(len(given_text.prompts))
        ]
    assert new.value == pytest.approx(old)
    assert new.items == pytest.approx(parts, rel=1e-4)
    assert new.n == 3
    assert 0 <= new.interval[0] < new.value < new.interval[1]
    assert "nats per token" in new.rows[0]["measure"]


def neutral_text_of(text, k):
    return type(text)(text.prompts[k : k + 1], text.responses[k : k + 1], text.logits[k : k + 1])


def test_an_unsteered_model_has_no_divergence(lm, given_text):
    found = kl_divergence(lm, given_text)
    assert found.value == pytest.approx(0, abs=1e-6)
    assert found.interval[1] < 1e-4


def test_perplexity_is_the_exponential_of_the_mean_over_tokens(lm, given_text, vector):
    for coefficient in (0.0, 0.7):
        with lm.steered(vector, coefficient):
            found = perplexity(lm, given_text)
            nats = torch.cat(lm.logprobs(PROMPTS, GIVEN)).double()
        assert found.value == pytest.approx(math.exp(-float(nats.mean())), rel=1e-6)
        assert 1 <= found.interval[0] < found.value < found.interval[1]
        assert len(found.items) == 3


def test_own_continuations_are_less_surprising_than_texts_given(lm, given_text):
    own = perplexity(lm, neutral_text(lm, PROMPTS, max_new_tokens=8))
    assert own.value < perplexity(lm, given_text).value


def test_texts_given_must_fit_their_prompts(lm):
    with pytest.raises(TextError):
        neutral_text(lm, PROMPTS, responses=GIVEN[:2])


def test_a_perplexity_beyond_floats_is_infinite(lm, given_text, monkeypatch):
    monkeypatch.setattr(
        type(lm), "logprobs", lambda *_: [torch.tensor([-1e4]), torch.tensor([-2e4])]
    )
    assert perplexity(lm, given_text).value == math.inf


def test_preference_is_a_table_that_names_its_reduction(lm):
    pairs = steer.Pairs.of(
        steer.Pair(p, c, r) for p, c, r in zip(PROMPTS, GIVEN, ("no", "a b c", "hm"), strict=True)
    )
    found = preference(lm, pairs, reduce="sum")
    accuracy, margin = found.rows
    assert (found.value, found.interval) == (found.accuracy.value, found.accuracy.interval)
    assert accuracy["measure"] == "preference accuracy (sum log-probability)"
    assert margin["measure"] == "margin in nats (sum log-probability)"
    assert margin["value"] == pytest.approx(found.margin)
    assert found.mean_margin.items == pytest.approx(tuple(found.margins.tolist()))
    assert sum(found.hits) == found.accuracy.hits
    assert "<table " in found._repr_html_()


def test_levels_are_a_table_that_names_its_reduction(lm):
    found = steer.level_preference(lm, PROMPTS, {"low": ("no",) * 3, "high": GIVEN})
    assert [row["measure"] for row in found.rows] == [
        "low likeliest (mean log-probability)",
        "high likeliest (mean log-probability)",
    ]
    assert [row["value"] for row in found.rows] == [
        found.accuracy(level).value for level in ("low", "high")
    ]


def test_a_tie_is_no_hit():
    found = Preference(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]), "mean")
    assert found.hits == (False, True)
