"""A GGUF file is a model with its tokenizer inside."""

import sys
from pathlib import Path

import pytest
import torch

import steer
from steer.alignment import preference_tune
from steer.errors import AlignmentError, CheckpointError, MissingExtraError
from steer.merge import merge_checkpoint
from tests.model.gguf_file import write_gguf
from tests.tiny import tiny_model, tiny_tokenizer

ASKED = ["Is the dose safe?", "What is the price of the bond?"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, tiny_model("llama"), tiny_tokenizer())
    return path


@pytest.fixture(scope="module")
def lm() -> steer.Model:
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


def loaded(file: Path, how: str) -> steer.Model:
    if how == "the file":
        return steer.Model.from_pretrained(file)
    return steer.Model.from_pretrained(str(file.parent), gguf_file=file.name)


@pytest.mark.parametrize("how", ["the file", "folder and gguf_file"])
def test_model_and_tokenizer_are_those_of_the_file(file, lm, how):
    found = loaded(file, how)
    assert found.tokenizer.chat_template == lm.tokenizer.chat_template
    for prompt in ASKED:
        ours, theirs = (steer.network.encode_prompt(m.tokenizer, prompt) for m in (found, lm))
        assert ours == theirs
    for ours, theirs in zip(found.activations(ASKED), lm.activations(ASKED), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-4)
    assert found.generate(ASKED, max_new_tokens=4) == lm.generate(ASKED, max_new_tokens=4)


def test_a_vector_of_the_same_model_fits_and_names_the_file(file, lm):
    found = loaded(file, "the file")
    vector = steer.Vector.of({1: torch.ones(lm.d_model)})
    with found.steered(vector, 0.5), lm.steered(vector, 0.5):
        assert found.generate(ASKED, max_new_tokens=4) == lm.generate(ASKED, max_new_tokens=4)
    assert found.info.model_id == str(file)
    assert loaded(file, "folder and gguf_file").info == found.info


def test_weights_of_a_gguf_are_merged_and_taken_out_again(file):
    found = loaded(file, "the file")
    name = "model.layers.1.mlp.down_proj.weight"
    before = found.hf_model.get_parameter(name).clone()
    vector = steer.Vector({steer.Weight(name): steer.Dense(torch.ones_like(before))})
    with found.steered(vector, 0.5, weights="merge"):
        assert torch.equal(found.hf_model.get_parameter(name), before + 0.5)
    assert torch.equal(found.hf_model.get_parameter(name), before)


def test_a_folder_of_gguf_files_says_which_there_are(file):
    with pytest.raises(CheckpointError, match=r"gguf_file='tiny\.gguf'"):
        steer.Model.from_pretrained(file.parent)


def test_a_gguf_file_that_is_not_there_is_refused_with_those_that_are(file):
    with pytest.raises(CheckpointError, match=r"tiny\.gguf"):
        steer.Model.from_pretrained(file.parent, gguf_file="other.gguf")
    with pytest.raises(CheckpointError, match="no such"):
        steer.Model.from_pretrained(file.parent / "other.gguf")


def test_a_file_that_is_named_twice_is_refused(file):
    with pytest.raises(CheckpointError, match="without gguf_file"):
        steer.Model.from_pretrained(file, gguf_file="tiny.gguf")


@pytest.mark.parametrize("kept", [0, 4, 40, 4000, -100])
def test_a_damaged_gguf_is_refused_by_name(file, tmp_path, kept):
    (tmp_path / "cut.gguf").write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"cut\.gguf"):
        steer.Model.from_pretrained(tmp_path / "cut.gguf")


def test_without_the_package_the_extra_is_named(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"residual-steer\[gguf\]"):
        steer.Model.from_pretrained(file)


def test_the_weights_are_plain_whatever_kernels_there_are(file, lm, tmp_path):
    found = loaded(file, "the file")
    assert not getattr(found.hf_model.config, "quantization_config", None)
    found.hf_model.save_pretrained(tmp_path)
    found.tokenizer.save_pretrained(tmp_path)
    again = steer.Model.from_pretrained(tmp_path)
    assert again.generate(ASKED, max_new_tokens=4) == lm.generate(ASKED, max_new_tokens=4)
    with pytest.raises(AlignmentError, match="the two models are the same"):
        steer.alignment_vector(tmp_path, found, progress=False)


def test_a_gguf_model_can_be_tuned(file):
    pairs = steer.Pairs.of([steer.Pair("how are you", "fine", "no")])
    tuned = preference_tune(loaded(file, "the file"), pairs, steps=1, progress=False)
    assert tuned.info.model_id == f"{file} tuned with ipo on 1 pairs"


def test_weights_are_compared_and_merged_from_folders(file, tmp_path):
    with pytest.raises(CheckpointError, match=r"GGUF[\s\S]*save_pretrained"):
        steer.alignment_vector(file, file, progress=False)
    with pytest.raises(CheckpointError, match=r"GGUF[\s\S]*save_pretrained"):
        merge_checkpoint(file, [(file, 1.0)], tmp_path / "out", progress=False)
