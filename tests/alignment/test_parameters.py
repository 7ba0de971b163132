"""A checkpoint's tensors come out under the names, and in the shapes, of the model itself."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from steer.errors import CheckpointError
from steer.network import Checkpoint
from steer.network._parameters.layout import layout_of
from steer.network._parameters.parameters import parameters_in, parameters_of
from tests.alignment.models import saved
from tests.tiny import FAMILIES, tiny_model, tiny_vlm


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_disk_and_memory_agree_in_every_family(family: str, tied: bool, tmp_path: Path) -> None:
    model = tiny_model(family, layers=2, tie_word_embeddings=tied)
    on_disk = parameters_in(Checkpoint.open(saved(model, tmp_path, tokenizer=False)))
    in_memory = parameters_of(model)
    names = [name for name, _ in model.named_parameters()]
    assert list(in_memory.shapes) == names
    assert dict(on_disk.shapes) == dict(in_memory.shapes)
    assert dict(on_disk.aliases) == dict(in_memory.aliases)
    assert bool(in_memory.aliases) is tied
    for name in names:
        assert torch.equal(on_disk.read(name), model.get_parameter(name))


def test_a_vision_language_model_keeps_its_own_names(tmp_path: Path) -> None:
    model = tiny_vlm()
    found = parameters_in(Checkpoint.open(saved(model, tmp_path, tokenizer=False)))
    for name, parameter in model.named_parameters():
        assert torch.equal(found.read(name), parameter)


def test_experts_are_joined_as_the_model_holds_them(tmp_path: Path) -> None:
    model = tiny_model("mixtral", layers=1)
    checkpoint = Checkpoint.open(saved(model, tmp_path, tokenizer=False))
    layout = layout_of(checkpoint)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    assert set(layout.converters) == {name, "model.layers.0.mlp.experts.down_proj"}
    assert len(layout.sources[name]) == 8
    assert name not in checkpoint.names


def test_names_without_the_base_model_s_prefix(tmp_path: Path) -> None:
    """As the checkpoints of GPT-2 on the Hub are, with their masks."""
    model = tiny_model("gpt2", layers=1)
    folder = saved(model, tmp_path, shard="1GB", tokenizer=False)
    path = folder / "model.safetensors"
    bare = {n.removeprefix("transformer."): t for n, t in load_file(path).items()}
    save_file(bare | {"h.0.attn.bias": torch.ones(1, 1, 4, 4)}, path)
    layout = layout_of(Checkpoint.open(folder))
    assert layout.left_out == ("h.0.attn.bias",)
    assert layout.sources["transformer.h.0.ln_1.weight"] == ("h.0.ln_1.weight",)


def test_tied_weights_under_the_other_name(tmp_path: Path) -> None:
    model = tiny_model("llama", layers=1, tie_word_embeddings=True)
    folder = saved(model, tmp_path, shard="1GB", tokenizer=False)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, folder / "model.safetensors")
    found = parameters_in(Checkpoint.open(folder))
    assert "lm_head.weight" not in found.shapes
    assert torch.equal(found.read("model.embed_tokens.weight"), tensors["lm_head.weight"])


@pytest.mark.parametrize("equal", [True, False])
def test_both_names_of_tied_weights(tmp_path: Path, equal: bool) -> None:
    """Equal: once. Different: `transformers` does not tie them, and neither do we."""
    model = tiny_model("llama", layers=1, tie_word_embeddings=True)
    folder = saved(model, tmp_path, shard="1GB", tokenizer=False)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + (0.0 if equal else 1.0)
    save_file(tensors, folder / "model.safetensors")
    found = parameters_in(Checkpoint.open(folder))
    assert ("lm_head.weight" in found.shapes) is not equal
    assert bool(found.aliases) is equal
    if not equal:
        assert torch.equal(found.read("lm_head.weight"), tensors["lm_head.weight"])


def test_what_is_no_parameter_is_left_out_by_rule(tmp_path: Path) -> None:
    folder = saved(tiny_model("llama", layers=1), tmp_path, shard="1GB", tokenizer=False)
    path = folder / "model.safetensors"
    extra = {
        "model.position_ids": torch.arange(4),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    }
    save_file(load_file(path) | extra, path)
    assert set(layout_of(Checkpoint.open(folder)).left_out) == set(extra)


def test_two_tensors_for_one_parameter_are_refused(tmp_path: Path) -> None:
    folder = saved(tiny_model("llama", layers=1), tmp_path, shard="1GB", tokenizer=False)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"norm.weight": torch.ones(32)}, path)
    with pytest.raises(CheckpointError, match=r"both model.norm.weight and norm.weight"):
        layout_of(Checkpoint.open(folder))


def test_experts_one_by_one_and_as_a_block_are_refused(tmp_path: Path) -> None:
    model = tiny_model("mixtral", layers=1)
    folder = saved(model, tmp_path, shard="1GB", tokenizer=False)
    path, name = folder / "model.safetensors", "model.layers.0.mlp.experts.down_proj"
    save_file(load_file(path) | {name: model.get_parameter(name).detach()}, path)
    with pytest.raises(CheckpointError, match=rf"{name}: both {name} and .*experts.0.w2.weight …"):
        layout_of(Checkpoint.open(folder))


def test_every_tensor_that_does_not_fit_is_named(tmp_path: Path) -> None:
    folder = saved(tiny_model("llama", layers=1), tmp_path, shard="1GB", tokenizer=False)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    tensors["lm_head.weight"] = torch.ones(3, 32)
    tensors["score.weight"] = torch.ones(2)
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.ones(64, 32, dtype=torch.int8)
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as caught:
        layout_of(Checkpoint.open(folder))
    for words in (
        "model.norm.weight: missing",
        "lm_head.weight: (3, 32), by the configuration (128, 32)",
        "score.weight: no parameter of the model",
        "model.layers.0.mlp.up_proj.weight: quantised",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ('"model_type": "none-such"', "no class for it"),
        ('"quantization_config": {"quant_method": "fp8"}', "quantised"),
    ],
)
def test_a_model_of_an_unknown_kind_is_refused(tmp_path: Path, entry: str, words: str) -> None:
    folder = saved(tiny_model("llama", layers=1), tmp_path, tokenizer=False)
    text = (folder / "config.json").read_text().replace('"model_type": "llama"', '"was": "llama"')
    if "quantization" in entry:
        entry = f'"model_type": "llama", {entry}'
    (folder / "config.json").write_text(text.replace("{", "{" + entry + ",", 1))
    with pytest.raises(CheckpointError, match=words):
        layout_of(Checkpoint.open(folder))


@pytest.mark.parametrize("change", [{"intermediate_size": "x"}, {"vocab_size": -3}])
def test_a_configuration_that_builds_no_model_is_refused(
    change: dict[str, object], tmp_path: Path
) -> None:
    folder = saved(tiny_model("llama", layers=1), tmp_path, tokenizer=False)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match="no class for it"):
        layout_of(Checkpoint.open(folder))


def test_the_global_random_state_stays(tmp_path: Path) -> None:
    folder = saved(tiny_model("llama", layers=1), tmp_path, tokenizer=False)
    before = torch.random.get_rng_state()
    layout_of(Checkpoint.open(folder))
    assert torch.equal(torch.random.get_rng_state(), before)
