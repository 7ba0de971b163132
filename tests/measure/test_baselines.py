"""Random vectors of equal norm, prompt prefixes, and the table of baselines."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import steer
from steer.algebra import DomainGate, inner
from steer.errors import ArgumentError, SelectionError
from steer.measure import (
    EndpointJudge,
    ModelJudge,
    RuleJudge,
    ShareChange,
    Verdict,
    baselines,
    judged_accuracy,
    preference,
    prompt_prefix,
    random_like,
)
from steer.report import Report
from tests import letters
from tests.letters import letter_pairs
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def lm():
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


@pytest.fixture(scope="module")
def pairs():
    return letter_pairs(12)


@pytest.fixture(scope="module")
def planted(lm):
    return letters.planted(lm)


@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([torch.float32, torch.bfloat16]))
def test_every_term_keeps_kind_shape_rank_dtype_and_norm(seed, rank, dtype):
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return (3 * torch.randn(*shape, generator=generator)).to(dtype)

    vector = steer.Vector(
        {
            steer.Residual(2): steer.Direction(drawn(8)),
            steer.Weight("a.weight"): steer.LowRank(drawn(6, rank), drawn(rank, 5)),
            steer.Weight("b.bias"): steer.Dense(drawn(7)),
            steer.Weight("c.weight"): steer.Dense(torch.zeros(2, 3, dtype=dtype)),
        }
    )
    found, again, other = (random_like(vector, s) for s in (seed, seed, seed + 1))
    for site, term in vector.terms.items():
        new = found.terms[site]
        assert type(new) is type(term)
        assert new.shape == term.shape
        assert getattr(new, "rank", 0) == getattr(term, "rank", 0)
        length = inner(term, term) ** 0.5
        near = 1e-5 if dtype == torch.float32 else 2e-2
        assert inner(new, new) ** 0.5 == pytest.approx(length, rel=near)
        assert inner(new, again.terms[site]) == pytest.approx(inner(new, new))
        if length:
            assert inner(new, other.terms[site]) < 0.999 * inner(new, new)


def test_a_composition_keeps_everything_but_its_vectors():
    gate = DomainGate(("a", "b"), torch.randn(2, 8), layer=0)
    vectors = {name: steer.Vector.of({2: torch.ones(8)}) for name in ("a", "b")}
    parts = {
        "a": steer.Part(vectors["a"], scope="response"),
        "b": steer.Part(vectors["b"], operator="ablate"),
    }
    knobs = steer.compose(parts, gate=gate)(a=0.5, b=0.25)
    found = random_like(knobs, 0)
    assert found.domains == knobs.domains
    assert torch.equal(found.coefficients, knobs.coefficients)
    assert found.gate is gate
    assert [(str(p.scope), p.operator) for p in found.parts.values()] == [
        ("response", "add"),
        ("all", "ablate"),
    ]
    a, b = (part.vector for part in found.parts.values())
    assert a.norm() == pytest.approx(8**0.5)
    assert a.cosine(b) < 0.99


def test_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    random_like(steer.Vector.of({0: torch.ones(4)}), 0)
    assert torch.equal(before, torch.get_rng_state())


def test_an_instruction_or_two_examples_become_the_prompt(pairs):
    message = steer.Message
    assert prompt_prefix("say b", pairs) == (message("system", "say b"),)
    assert prompt_prefix(None, pairs[:5]) == (
        message("user", "question 0"),
        message("assistant", "b b"),
        message("user", "question 1"),
        message("assistant", "b b b"),
    )
    talk = steer.Pair((message("user", "hi"),), "a", "b")
    assert prompt_prefix(None, [talk]) == prompt_prefix(None, []) == ()


def test_every_condition_is_measured_on_the_same_pairs(lm, pairs, planted):
    other = steer.Model(tiny_model("llama", seed=5), tiny_tokenizer())
    found = baselines(lm, planted, pairs, instruction="say b", seeds=(4, 7), tuned=other)
    names = ("steered", "unsteered", "prompted", "random 4", "random 7", "tuned")
    assert found.conditions == names
    with lm.steered(planted):
        steered = preference(lm, pairs)
    with lm.steered(random_like(planted, 7)):
        random = preference(lm, pairs)
    plain = preference(lm, pairs)
    prompted = preference(lm, pairs, prefix=prompt_prefix("say b", ()))
    expected = (steered, plain, prompted, random, preference(other, pairs))
    for name, wanted in zip((*names[:3], "random 7", "tuned"), expected, strict=True):
        assert torch.allclose(found.preferences[name].margins, wanted.margins, atol=1e-6)
    assert found.gain("unsteered") == ShareChange.of(plain.hits, steered.hits)
    assert found.value == steered.accuracy.value == 1.0
    row = next(r for r in found.rows if r["condition"] == "unsteered" and "margin" in r["measure"])
    assert row["gain"] == pytest.approx(steered.margin - plain.margin, abs=1e-5)
    assert row["gain low"] < row["gain"] < row["gain high"]
    assert all("mean log-probability" in r["measure"] for r in found.rows)
    assert found.rows[0]["gain"] is None
    assert len(found.rows) == 12


def test_a_vector_beats_them_only_if_it_beats_unsteered_and_every_random_direction(
    lm, pairs, planted
):
    found = baselines(lm, planted, pairs, instruction="say b", seeds=(4,))
    assert found.beats_unsteered_and_random
    nothing = steer.Vector.of({1: torch.full((32,), 1e-7)})
    found = baselines(lm, nothing, pairs, instruction="say b", seeds=(0,))
    assert not found.beats_unsteered_and_random


def test_generated_answers_are_judged_beside_each_other(lm, pairs, planted):
    def judge(prompt, text):
        assert isinstance(prompt, str)  # what was asked, without the messages of the prompted one
        return "b" if " b" in text else "other"

    found = baselines(
        lm,
        planted,
        pairs[2:5],
        shots=pairs[:2],
        seeds=(4,),
        judge=judge,
        wanted="b",
        max_new_tokens=4,
    )
    assert tuple(found.judged) == found.conditions
    assert found.judged["steered"].accuracy.hits == 3
    rows = [row for row in found.rows if row["measure"] == "judged accuracy"]
    assert [row["condition"] for row in rows] == list(found.conditions)
    change = ShareChange.of(found.judged["prompted"].hits, found.judged["steered"].hits)
    assert (rows[2]["gain"], rows[2]["gain low"]) == (change.value, change.interval[0])


def test_judged_scores_are_compared_item_by_item(lm, pairs, planted):
    found = baselines(
        lm,
        planted,
        pairs[2:5],
        instruction="say b",
        seeds=(),
        judge=lambda prompt, text: float(text.count("b")),
        max_new_tokens=4,
    )
    rows = [row for row in found.rows if row["measure"] == "judged score"]
    assert [row["condition"] for row in rows] == ["steered", "unsteered", "prompted"]
    scores = [found.judged[name].score.value for name in ("steered", "unsteered")]
    assert rows[1]["gain"] == pytest.approx(scores[0] - scores[1])


JUDGED = {"instruction": "say b", "seeds": (4,), "max_new_tokens": 4}


def test_labels_without_one_wanted_leave_the_gain_empty(lm, pairs, planted):
    def judge(prompt, text):
        return "b" if " b" in text else "other"

    found = baselines(lm, planted, pairs[2:5], judge=judge, **JUDGED)
    judged = [row for row in found.rows if row["measure"].startswith("judged")]
    assert [row["gain"] for row in judged] == [None] * 4
    assert judged[0]["measure"] == "judged b"
    assert "judged b" in repr(found)
    assert "judged b" in found._repr_html_()


def test_answers_that_were_not_judged_leave_the_gain_empty_until_they_are(lm, pairs, planted):
    def judge(prompt, text):
        return Verdict("b" if " b" in text else "other")

    def unheard(prompt, text):
        return Verdict(None, error="no route") if prompt == pairs[3].prompt else judge(prompt, text)

    found = baselines(lm, planted, pairs[2:5], judge=unheard, wanted="b", **JUDGED)
    judged = found.rows[8:]
    assert {(row["measure"], row["gain"]) for row in judged} == {("not judged (no route)", None)}
    assert len(judged) == 4
    assert "not judged" in repr(found)
    assert "not judged" in Report.of(found).html
    settled = found.again(judge)
    change = ShareChange.of(settled.judged["prompted"].hits, settled.judged["steered"].hits)
    row = settled.rows[10]
    assert (row["condition"], row["measure"]) == ("prompted", "judged accuracy")
    assert row["gain"] == change.value


@pytest.mark.parametrize(
    "wanted", ["nothing", ["b", "b"], ["b", "b", "nothing"]], ids=["label", "number", "one"]
)
def test_what_a_judge_cannot_give_is_refused_before_anything_is_generated(
    lm, pairs, planted, wanted, monkeypatch
):
    rule = RuleJudge({"b": r"\bb\b"}, otherwise="other")
    model = ModelJudge(lm, "{answer}", {"b": "yes", "other": "no"})
    served = EndpointJudge("judge", "{answer}", ["b", "other"], base_url="http://localhost:1/v1")
    monkeypatch.setattr(type(lm), "generate", lambda *_, **__: pytest.fail("generated"))
    for judge in (rule, model, served):
        with pytest.raises(ArgumentError, match="cannot give the wanted labels"):
            baselines(lm, planted, pairs[2:5], judge=judge, wanted=wanted, **JUDGED)
        with pytest.raises(ArgumentError, match="cannot give the wanted labels"):
            judged_accuracy(lm, ["hello"] * 3, judge, wanted=wanted)


def test_a_prompted_baseline_needs_something_else_to_show(lm, pairs, planted):
    nameless = steer.Pairs.of(replace(pair, domain=None) for pair in pairs[:2])
    for shots in (None, pairs[:0], pairs[:2], nameless):
        with pytest.raises(SelectionError, match="prompted baseline"):
            baselines(lm, planted, pairs, shots=shots)
