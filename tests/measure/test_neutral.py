"""KL with an interval, and perplexity, against computations in full."""

import math

import pytest
import torch

import steer
from steer.errors import SelectionError, TextError
from steer.measure import (
    Preference,
    kl_divergence,
    neutral_text,
    off_target,
    perplexity,
    preference,
)
from steer.selection import Limits, calibrate
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


def test_the_divergence_is_that_of_all_tokens_with_texts_as_items(lm, given_text, vector):
    with lm.steered(vector, 0.7):
        new = kl_divergence(lm, given_text)
        parts = [
            kl_divergence(lm, neutral_text_of(given_text, k)).value
            for k in range(len(given_text.prompts))
        ]
    tokens = torch.tensor([float(len(row)) for row in given_text.logits])
    assert new.value == pytest.approx(float(torch.tensor(new.items) @ tokens / tokens.sum()))
    assert new.items == pytest.approx(parts, rel=1e-4)
    assert new.n == 3
    assert 0 <= new.interval[0] < new.value < new.interval[1]
    assert "nats per token" in new.rows[0]["measure"]


def neutral_text_of(text, k):
    return type(text)(text.prompts[k : k + 1], text.responses[k : k + 1], text.logits[k : k + 1])


def test_neutral_text_prints_what_was_said_and_no_logits(given_text):
    shown = repr(given_text)
    assert "a boat on the sea" in shown
    assert f"{given_text.tokens} tokens" in shown
    assert "tensor" not in shown
    assert "<table" in given_text._repr_html_()


def test_neutral_text_of_another_vocabulary_is_refused(given_text):
    other = steer.Model(tiny_model("llama", vocab=136), tiny_tokenizer())
    with pytest.raises(SelectionError, match=r"another model(.|\n)*128\)(.|\n)*136\)"):
        kl_divergence(other, given_text)


def test_an_unsteered_model_has_no_divergence(lm, given_text):
    found = kl_divergence(lm, given_text)
    assert found.value == pytest.approx(0, abs=1e-6)
    assert found.interval[1] < 1e-4


def test_perplexity_is_the_exponential_of_the_mean_over_tokens(lm, vector):
    for coefficient in (0.0, 0.7):
        with lm.steered(vector, coefficient):
            found = perplexity(lm, PROMPTS, GIVEN)
            nats = torch.cat(lm.logprobs(PROMPTS, GIVEN)).double()
        assert found.value == pytest.approx(math.exp(-float(nats.mean())), rel=1e-6)
        assert 1 <= found.interval[0] < found.value < found.interval[1]
        assert len(found.items) == 3


def test_own_continuations_are_less_surprising_than_texts_given(lm):
    own = neutral_text(lm, PROMPTS, max_new_tokens=8)
    assert perplexity(lm, own.prompts, own.responses).value < perplexity(lm, PROMPTS, GIVEN).value


def test_texts_given_must_fit_their_prompts(lm):
    with pytest.raises(TextError):
        neutral_text(lm, PROMPTS, responses=GIVEN[:2])


def test_perplexity_keeps_no_logits(lm, monkeypatch):
    expected = perplexity(lm, PROMPTS, GIVEN)
    monkeypatch.setattr(type(lm), "logits", lambda *_: pytest.fail("full logits of every answer"))
    assert perplexity(lm, PROMPTS, GIVEN) == expected


@pytest.fixture
def barred():
    """A model that never gives one token."""
    lm = steer.Model(tiny_model("llama"), tiny_tokenizer())
    token = lm.tokenizer("q", add_special_tokens=False)["input_ids"][-1]

    def bar(module, args, out):
        return out.index_fill(-1, torch.tensor([token]), -math.inf)

    handle = lm.hf_model.lm_head.register_forward_hook(bar)
    yield lm
    handle.remove()


def test_a_token_that_is_never_given_adds_nothing_to_the_divergence(barred, vector):
    text = neutral_text(barred, PROMPTS, max_new_tokens=4)
    with barred.steered(vector, 0.7):
        found = kl_divergence(barred, text).value
        tables = barred.logits(text.prompts, text.responses)
    sums = []
    for now, before in zip(tables, text.logits, strict=True):
        p, u = (torch.softmax(x.double(), dim=-1) for x in (now, before))
        kept = p > 0
        sums.append(float((p[kept] * (p[kept] / u[kept]).log()).sum()))
    assert found == pytest.approx(sum(sums) / text.tokens, rel=1e-4)
    assert found > 0


def test_a_budget_is_not_kept_by_what_is_no_number(barred, vector):
    pairs = steer.Pairs.of(steer.Pair(f"{k}", "b b", "c c") for k in range(8))
    options = {"coefficients": (5.0,), "neutral": PROMPTS, "progress": False}
    with pytest.raises(SelectionError, match="exceeds kl by"):
        steer.select(barred, vector, pairs, limits=Limits(kl=0.001), **options)
    text = neutral_text(barred, PROMPTS, max_new_tokens=4)
    broken = type(text)(text.prompts, text.responses, tuple(x * math.nan for x in text.logits))
    for what in (vector, steer.compose(vector=vector)):
        with pytest.raises(SelectionError, match="no setting has finite numbers"):
            steer.select(
                barred, what, pairs, limits=Limits(kl=1e9), **options | {"neutral": broken}
            )
    with pytest.raises(SelectionError, match="out of reach"):
        calibrate(barred, vector, 0.1, neutral=broken)


def test_scores_that_are_no_numbers_are_refused(barred, vector):
    pairs = steer.Pairs.of(steer.Pair(f"{k}", "b b", "q") for k in range(8))
    options = {"coefficients": (0.1,), "neutral": PROMPTS, "progress": False}
    with pytest.raises(SelectionError, match="scores of these pairs are not finite"):
        steer.select(barred, vector, pairs, **options)
    with pytest.raises(SelectionError, match="not finite"):
        off_target(barred, vector, pairs)


def test_a_perplexity_beyond_floats_is_infinite(lm, monkeypatch):
    monkeypatch.setattr(
        type(lm), "logprobs", lambda *_: [torch.tensor([-1e4]), torch.tensor([-2e4])]
    )
    assert perplexity(lm, PROMPTS, GIVEN).value == math.inf


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
