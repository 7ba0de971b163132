"""Preference-tuning: the copy prefers what it was told to, the model stays as it was."""

import random

import pytest
import torch

import steer
from steer.alignment import preference_tune
from steer.errors import ArchitectureError, ArgumentError, MissingExtraError, PairsError
from steer.measure import preference
from tests.tiny import tiny_model, tiny_tokenizer

PAIRS = steer.Pairs.of(
    steer.Pair(prompt, "water", "the wind")
    for prompt in ("how are you", "what is this", "tell me more", "is it the sea")
)
QUICK = {"steps": 6, "batch_size": 4, "learning_rate": 5e-3, "progress": False}


@pytest.fixture(scope="module")
def lm():
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


def weights(model):
    return {name: w.detach().clone() for name, w in model.hf_model.named_parameters()}


@pytest.mark.parametrize("rank", [None, 4])
def test_the_copy_prefers_the_chosen_and_the_model_stays_as_it_was(lm, rank):
    before, training = weights(lm), lm.hf_model.training
    aligned = preference_tune(lm, PAIRS, lora_rank=rank, **QUICK)
    assert preference(aligned, PAIRS).margin > preference(lm, PAIRS).margin + 0.1
    assert all(torch.equal(w, before[name]) for name, w in lm.hf_model.named_parameters())
    assert lm.hf_model.training == training
    assert not aligned.hf_model.training
    assert list(weights(aligned)) == list(before)


@pytest.mark.parametrize("rank", [None, 4])
def test_parts_that_were_named_by_hand_are_named_in_the_copy(rank):
    hf_model = tiny_model("llama")
    hf_model.config.num_hidden_layers = 6  # the blocks are four, which is not found by itself
    with pytest.raises(ArchitectureError):
        steer.Model(hf_model, tiny_tokenizer())
    lm = steer.Model(hf_model, tiny_tokenizer(), blocks="model.layers")
    aligned = preference_tune(lm, PAIRS, lora_rank=rank, **QUICK)
    assert aligned.architecture.names == lm.architecture.names


def test_equal_seeds_give_equal_models_and_global_random_states_stay(lm):
    torch.manual_seed(1)
    random.seed(1)
    states = torch.get_rng_state(), random.getstate()
    first, second = (preference_tune(lm, PAIRS, seed=3, **QUICK) for _ in range(2))
    for name, w in weights(first).items():
        assert torch.equal(w, weights(second)[name]), name
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


@pytest.mark.parametrize("rank", [None, 2])
def test_the_copy_is_named_after_what_was_done_to_it(rank):
    hf_model = tiny_model("llama")
    hf_model.config._name_or_path = "owner/base"
    hf_model.config._commit_hash = "1234"
    lm = steer.Model(hf_model, tiny_tokenizer())
    aligned = preference_tune(lm, PAIRS, lora_rank=rank, **QUICK)
    assert aligned.info.model_id == "owner/base tuned with ipo on 4 pairs"
    assert aligned.info.revision is None
    assert (lm.info.model_id, lm.info.revision) == ("owner/base", "1234")
    made = steer.alignment_vector(lm, aligned, progress=False).provenance
    assert made.arguments["base"] == "owner/base"
    assert made.arguments["aligned"] == aligned.info.model_id
    assert made.model == lm.info
    with aligned.steered(steer.Vector.of({1: torch.ones(32)}), 0.5, weights="merge"):
        aligned.generate("how are you", max_new_tokens=1)


def test_an_adapter_is_saved(lm, tmp_path):
    preference_tune(lm, PAIRS, lora_rank=2, adapter=str(tmp_path / "adapter"), **QUICK)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


def test_a_folder_for_an_adapter_that_is_not_made_is_refused(lm, tmp_path):
    with pytest.raises(ArgumentError, match="lora_rank"):
        preference_tune(lm, PAIRS, adapter=str(tmp_path / "adapter"), **QUICK)
    assert not (tmp_path / "adapter").exists()


def test_without_pairs_there_is_nothing_to_prefer(lm):
    with pytest.raises(PairsError, match="nothing to prefer"):
        preference_tune(lm, PAIRS[:0])


def test_without_trl_the_extra_is_named(lm, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "trl", None)
    with pytest.raises(MissingExtraError, match=r"residual-steer\[tune\]"):
        preference_tune(lm, PAIRS, **QUICK)
