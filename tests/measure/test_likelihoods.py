"""Many settings together give what each gives alone, and say how."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import steer
from steer.engine._branches import trial
from steer.errors import CompositionError, TextError
from steer.measure import likelihoods
from steer.model import exchange_batch
from tests.conformance import cases
from tests.conformance.cases import Snapshot, distance, gate, knobs, mixed
from tests.measure.setting import ASKED, GIVEN, SETTINGS, check_equal, model, one_by_one
from tests.tiny import FAMILIES, tiny_model, tiny_tokenizer

UNCUT = {"gemma2": "softcap", "falcon": "attention interface"}
ONE_SCOPE = [(scope, scope, scope) for scope in cases.SCOPES]
SCOPES = [*ONE_SCOPE, ("last_prompt", "response", "all[3:]"), ("all[900:]",) * 3]
LAYERS = [
    ((1, 2), (1, 3), (2,)),
    ((-1,), (3,), (2,)),
    ((3,), (3,), (3,)),
    ((-1, 3), (-1,), (-1,)),
]


@pytest.mark.parametrize("scopes", [("all",) * 3, ("response",) * 3], ids=lambda s: s[0])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_what_each_setting_gives_alone(family, scopes) -> None:
    lm, composed = model(family), knobs(scopes=scopes)
    found = likelihoods(lm, composed, SETTINGS, ASKED, GIVEN)
    check_equal(found.logprobs, one_by_one(lm, composed, SETTINGS))
    assert found.way.startswith("plain: " if family in UNCUT else "branched")
    assert UNCUT.get(family, "") in found.way


@pytest.mark.parametrize("layers", LAYERS, ids=str)
@pytest.mark.parametrize("scopes", SCOPES, ids=str)
def test_every_scope_at_every_layer(scopes, layers) -> None:
    lm, composed = model(), knobs(scopes=scopes, layers=layers)
    found = likelihoods(lm, composed, SETTINGS, ASKED, GIVEN)
    assert found.way == "branched"
    check_equal(found.logprobs, one_by_one(lm, composed, SETTINGS))


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "opt", "qwen3_moe"])
@pytest.mark.parametrize("layers", LAYERS[1:], ids=str)
def test_other_families_at_the_first_and_the_last_layer(family, layers) -> None:
    scopes = ("last_prompt", "response", "all[3:]")
    lm, composed = model(family), knobs(scopes=scopes, layers=layers)
    found = likelihoods(lm, composed, SETTINGS, ASKED, GIVEN)
    assert found.way == "branched"
    check_equal(found.logprobs, one_by_one(lm, composed, SETTINGS))


@pytest.mark.parametrize("operators", [("ablate",) * 3, ("ablate", "add", "add")], ids=str)
def test_every_operator(operators) -> None:
    composed, rows = knobs(operators=operators), SETTINGS.abs()
    found = likelihoods(model(), composed, rows, ASKED, GIVEN)
    assert found.way == "branched"
    check_equal(found.logprobs, one_by_one(model(), composed, rows))


@pytest.mark.parametrize("scopes", [("all",) * 3, ("response", "all", "prompt")], ids=str)
@pytest.mark.parametrize("layer", [0, 1])
def test_a_gate_decides_as_it_does_alone(layer, scopes) -> None:
    composed = knobs(scopes=scopes, gate=gate(layer=layer))
    found = likelihoods(model(), composed, SETTINGS, ASKED, GIVEN)
    assert found.way == "branched"
    check_equal(found.logprobs, one_by_one(model(), composed, SETTINGS))
    open_ = likelihoods(model(), composed.gated(None), SETTINGS, ASKED, GIVEN)
    assert any(distance(a, b) > 1e-3 for a, b in zip(found.logprobs, open_.logprobs, strict=True))


@pytest.mark.parametrize("kind", ["weights", "both"])
def test_weight_sites_run_the_plain_way(kind) -> None:
    lm = model()
    composed = mixed(lm, kind)
    found = likelihoods(lm, composed, SETTINGS, ASKED, GIVEN)
    assert found.way == "plain: weights are displaced"
    check_equal(found.logprobs, one_by_one(lm, composed, SETTINGS))


def test_scopes_with_a_marker_run_the_plain_way() -> None:
    lm, composed = model(), knobs(scopes=("after:a", "before:a", "all"))
    found = likelihoods(lm, composed, SETTINGS, ASKED, GIVEN)
    assert found.way == "plain: a scope is found by its marker"
    check_equal(found.logprobs, one_by_one(lm, composed, SETTINGS))


def test_behind_a_gate_the_plain_way_scores_what_a_prompt_sees_once(monkeypatch) -> None:
    lm = model()
    composed = mixed(lm, "weights").gated(gate(layer=0))
    found = likelihoods(lm, composed, SETTINGS, ASKED, GIVEN)
    assert found.way == "plain: weights are displaced"
    check_equal(found.logprobs, one_by_one(lm, composed, SETTINGS))
    scored = []
    monkeypatch.setattr(
        lm, "logprobs", lambda p, r, run=lm.logprobs: scored.append(len(p)) or run(p, r)
    )
    grid = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 0.5])] * 3)
    likelihoods(lm, composed, grid, ASKED, GIVEN)
    assert sum(scored) <= 3 * len(ASKED), "27 settings are three to every prompt"


@pytest.mark.parametrize("max_tokens", [1, 37, 100_000])
@pytest.mark.parametrize("scope", ["all", "response"])
def test_the_size_of_a_forward_does_not_matter(scope, max_tokens) -> None:
    composed = knobs(scopes=(scope,) * 3)
    found = likelihoods(model(), composed, SETTINGS, ASKED, GIVEN, max_tokens=max_tokens)
    assert found.way == "branched"
    check_equal(found.logprobs, one_by_one(model(), composed, SETTINGS))


def test_the_unembedding_in_pieces(monkeypatch) -> None:
    monkeypatch.setattr("steer.engine._branches.scores._CPU_BYTES", 0)
    monkeypatch.setattr("steer.engine._branches.scores._FEWEST", 3)
    composed = knobs()
    found = likelihoods(model(), composed, SETTINGS, ASKED, GIVEN)
    assert found.way == "branched"
    check_equal(found.logprobs, one_by_one(model(), composed, SETTINGS))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.text("ab ", max_size=9), st.text("ab ", min_size=1)), min_size=1))
def test_texts_that_begin_alike_do_not_meet(texts) -> None:
    """A prompt may be the beginning of another's response: scopes then tell them apart."""
    lm = model()
    prompts, responses = [p for p, _ in texts], ["a" + r for _, r in texts]
    composed = knobs(scopes=("response", "last_prompt", "all[12:]"))
    found = likelihoods(lm, composed, SETTINGS[1:3], prompts, responses)
    assert found.way == "branched"
    for k, setting in enumerate(SETTINGS[1:3]):
        with lm.steered(composed, setting):
            alone = lm.logprobs(prompts, responses)
        for together, expected in zip(found.logprobs, alone, strict=True):
            assert distance(together[k], expected) <= 1e-5


def test_equal_calls_give_equal_bits() -> None:
    first, second = (likelihoods(model(), knobs(), SETTINGS, ASKED, GIVEN) for _ in range(2))
    assert all(map(torch.equal, first.logprobs, second.logprobs))


def test_blocks_below_run_once_and_no_token_of_an_unsteered_prompt_twice() -> None:
    lm = steer.Model(tiny_model("llama"), tiny_tokenizer())
    composed = knobs(scopes=("response",) * 3, layers=((1,), (1,), (1,)))
    likelihoods(lm, composed, SETTINGS, ASKED, GIVEN)  # the trial is behind us
    rows: dict[int, list[int]] = {0: [], 3: []}
    for layer, seen in rows.items():
        block = lm.architecture.blocks[layer]
        block.register_forward_hook(
            lambda module, args, out, seen=seen: seen.append(args[0].shape[0] * args[0].shape[1])
        )
    likelihoods(lm, composed, SETTINGS, ASKED, GIVEN)
    batch = exchange_batch(lm.tokenizer, ASKED, GIVEN)
    lengths = list(zip(batch.ids, batch.prompt_lengths, strict=True))
    prompts = sum({ids[:n]: n for ids, n in lengths}.values())
    answers = sum(len(ids) - n - 1 for ids, n in lengths)
    assert sum(rows[0]) <= prompts + answers
    assert sum(rows[3]) <= prompts + answers * len(SETTINGS)
    plain = sum(map(len, batch.ids)) * len(SETTINGS)
    assert sum(rows[3]) < plain / 1.5


def test_the_model_is_left_as_it_was_also_after_an_error() -> None:
    lm = steer.Model(tiny_model("llama"), tiny_tokenizer())
    likelihoods(lm, knobs(), SETTINGS, ASKED, GIVEN)
    before = Snapshot(lm.hf_model)
    likelihoods(lm, knobs(scopes=("response",) * 3), SETTINGS, ASKED, GIVEN)
    before.check(lm.hf_model)
    blocks = list(lm.hf_model.model.layers)

    def fail(module, args, out):
        raise OSError("stop")

    for layer in (1, 3):
        handle = lm.architecture.blocks[layer].register_forward_hook(fail)
        with pytest.raises(OSError, match="stop"):
            likelihoods(lm, knobs(scopes=("response",) * 3), SETTINGS, ASKED, GIVEN)
        handle.remove()
        before.check(lm.hf_model)
        assert list(lm.hf_model.model.layers) == blocks


def test_hooks_of_the_user_below_and_above_act_once() -> None:
    lm = steer.Model(tiny_model("llama"), tiny_tokenizer())
    composed = knobs()
    for layer in range(4):
        lm.architecture.blocks[layer].register_forward_hook(lambda m, a, out: out * 1.1)
    found = likelihoods(lm, composed, SETTINGS, ASKED, GIVEN)
    assert found.way == "branched"
    check_equal(found.logprobs, one_by_one(lm, composed, SETTINGS))


def test_inside_another_steering_both_act() -> None:
    lm = steer.Model(tiny_model("llama"), tiny_tokenizer())
    with lm.steered(knobs(), {"medical": 1.0}):
        found = likelihoods(lm, knobs(), SETTINGS, ASKED, GIVEN)
        assert found.way == "plain: the model is steered already"
        check_equal(found.logprobs, one_by_one(lm, knobs(), SETTINGS))


def test_what_is_done_adds_up() -> None:
    counts: list[int] = []
    likelihoods(model(), knobs(), SETTINGS, ASKED, GIVEN, max_tokens=50, done=counts.append)
    assert len(counts) > 1
    assert sum(counts) == len(SETTINGS) * len(GIVEN)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(TextError, match="differ in number"):
        likelihoods(model(), knobs(), SETTINGS, ASKED, GIVEN[:2])
    with pytest.raises(CompositionError):
        likelihoods(model(), knobs(), SETTINGS[:, :2], ASKED, GIVEN)
    with pytest.raises(CompositionError, match="out of range"):
        likelihoods(model(), knobs(operators=("ablate",) * 3), SETTINGS, ASKED, GIVEN)


def test_a_cut_that_gives_nan_is_not_used(monkeypatch) -> None:
    kernel = trial.branched_scores

    def broken(*args, **options):
        return [scores * torch.nan for scores in kernel(*args, **options)]

    monkeypatch.setattr(trial, "branched_scores", broken)
    lm = steer.Model(tiny_model("llama"), tiny_tokenizer())
    found = likelihoods(lm, knobs(), SETTINGS, ASKED, GIVEN)
    assert found.way.startswith("plain: the result differs by nan")
    check_equal(found.logprobs, one_by_one(lm, knobs(), SETTINGS))
