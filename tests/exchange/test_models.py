"""Formats that name or hold models: SAELens rows, mergekit configurations, plain checkpoints."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import steer
from steer.algebra import Vector
from steer.algebra._term import dense
from steer.errors import (
    ArgumentError,
    CapabilityError,
    CheckpointError,
    SteerError,
    VectorFileError,
)
from steer.exchange import read, write
from tests.alignment.models import pair, saved
from tests.tiny import tiny_model, tiny_tokenizer

IDS = torch.arange(3, 23).reshape(2, 10)
W_DEC = torch.arange(12.0).reshape(3, 4)


# -- SAELens -------------------------------------------------------------------------------------


def autoencoder(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    (folder / "cfg.json").write_text(json.dumps({"d_in": 4, "d_sae": 3, **config}))
    save_file({"W_dec": W_DEC, "b_dec": torch.zeros(4)}, folder / "sae_weights.safetensors")
    return folder


@pytest.mark.parametrize(
    ("config", "layer"),
    [
        ({"metadata": {"hook_name": "blocks.8.hook_resid_post", "model_name": "gpt2"}}, 8),
        ({"hook_name": "blocks.8.hook_resid_pre", "model_name": "gpt2"}, 7),
        ({"hook_point": "blocks.0.hook_resid_pre", "model_name": "gpt2"}, -1),
    ],
)
def test_a_row_is_read_at_the_layer_of_its_hook(
    config: dict[str, Any], layer: int, tmp_path: Path
) -> None:
    found = read(autoencoder(tmp_path / "sae", **config), "saelens", row=2)
    assert found.layers == (layer,)
    assert torch.equal(found.direction(layer), W_DEC[2])
    assert (found.provenance.arguments["model"], found.provenance.arguments["row"]) == ("gpt2", 2)


@pytest.mark.parametrize(
    "config",
    [
        {"hook_name": "blocks.8.attn.hook_z"},
        {"hook_name": "blocks.8.hook_resid_post", "hook_name_out": "blocks.8.hook_mlp_out"},
        {},
    ],
)
def test_an_autoencoder_of_something_else_is_refused(
    config: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(VectorFileError, match="not of the residual stream"):
        read(autoencoder(tmp_path / "sae", **config), "saelens", row=0)


def test_rows_and_weights_that_are_not_there_are_refused(tmp_path: Path) -> None:
    folder = autoencoder(tmp_path / "sae", hook_name="blocks.1.hook_resid_post")
    for row in (3, -1, "first"):
        with pytest.raises(ArgumentError, match="row "):
            read(folder, "saelens", row=row)
    for data in (b"", b"\x08\0\0\0\0\0\0\0{}      ", bytes(100)):
        (folder / "sae_weights.safetensors").write_bytes(data)
        with pytest.raises(VectorFileError):
            read(folder, "saelens", row=0)
    with pytest.raises(CapabilityError, match="cannot be written"):
        write(Vector.of({1: torch.ones(4)}), tmp_path / "new", "saelens")


def test_weights_that_are_a_pipe_are_refused(tmp_path: Path) -> None:
    """Opening one would wait for a writer."""
    folder = autoencoder(tmp_path / "sae", hook_name="blocks.1.hook_resid_post")
    (folder / "sae_weights.safetensors").unlink()
    os.mkfifo(folder / "sae_weights.safetensors")
    with pytest.raises(VectorFileError, match="not a file"):
        read(folder, "saelens", row=0)


def test_a_model_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    said = {"hook_name": "blocks.1.hook_resid_post", "model_name": ["gpt2"]}
    with pytest.raises(VectorFileError, match="not a text"):
        read(autoencoder(tmp_path / "sae", **said), "saelens", row=0)


# -- mergekit ------------------------------------------------------------------------------------


def models(tmp_path: Path) -> tuple[Path, Path]:
    base, aligned = pair("llama")
    return saved(base, tmp_path / "base"), saved(aligned, tmp_path / "aligned")


def test_a_configuration_is_task_arithmetic_of_the_models(tmp_path: Path) -> None:
    base, aligned = models(tmp_path)
    vector = steer.alignment_vector(base, aligned, progress=False)
    write(steer.compose(a=vector, b=vector)(a=0.75, b=-0.25), tmp_path / "merge.yml")
    assert yaml.safe_load((tmp_path / "merge.yml").read_text()) == {
        "merge_method": "task_arithmetic",
        "base_model": str(base),
        "models": [
            {"model": str(aligned), "parameters": {"weight": 0.75}},
            {"model": str(aligned), "parameters": {"weight": -0.25}},
        ],
    }
    found = read(tmp_path / "merge.yml")
    for site, term in vector.terms.items():  # 0.75 d − 0.25 d in float32
        wanted = 0.5 * dense(term)
        torch.testing.assert_close(dense(found.terms[site]), wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "text",
    [
        "models: []",
        "models: [{model: base}]",
        "dtype: &a [1]\nout_dtype: [*a, *a]\nmodels: [{model: a, parameters: {weight: 1.0}}]",
        "dtype: &a {k: 1}\nout_dtype: {<<: [*a, *a]}\nmodels: []",
    ],
)
def test_a_configuration_without_models_or_with_aliases_is_refused(
    text: str, tmp_path: Path
) -> None:
    """Some aliases within another grow to any size, and so do merged keys."""
    (tmp_path / "m.yml").write_text(f"merge_method: task_arithmetic\nbase_model: base\n{text}\n")
    with pytest.raises(VectorFileError, match=r"no model|an alias"):
        read(tmp_path / "m.yml")


def test_some_weights_of_a_difference_are_not_the_whole(tmp_path: Path) -> None:
    base, aligned = models(tmp_path)
    whole = steer.alignment_vector(base, aligned, progress=False)
    write(whole.weight, tmp_path / "m.yml")
    with pytest.raises(CapabilityError, match="forms"):
        write(whole[whole.sites[0]], tmp_path / "m.yml")


def test_what_is_not_the_whole_difference_is_refused(tmp_path: Path) -> None:
    base, aligned = models(tmp_path)
    whole = steer.alignment_vector(base, aligned, progress=False)
    some = {"include": ["*.weight"], "progress": False}
    memory = AutoModelForCausalLM.from_pretrained(base)
    memory.lm_head.weight.data += 1.0
    for vector in (
        steer.alignment_vector(base, aligned, rank=2, progress=False),
        steer.alignment_vector(base, aligned, **some),
        steer.magnitude(whole, 0.5),
        steer.alignment_vector(base, memory, progress=False),
        2.0 * whole,
    ):
        with pytest.raises(CapabilityError, match="cannot carry this"):
            write(vector, tmp_path / "merge.yml")
    other = steer.alignment_vector(aligned, base, progress=False)
    with pytest.raises(CapabilityError, match="cannot carry this"):
        write({"a": whole, "b": other}, tmp_path / "merge.yml")


@pytest.mark.parametrize(
    "changed",
    [
        {"merge_method": "ties"},
        {"slices": []},
        {"parameters": {"normalize": True}},
        {"parameters": {"lambda": 0.5}},
        {"models": [{"model": "m", "parameters": {"weight": [0, 1]}}]},
        {"models": [{"model": "m", "parameters": {"weight": 1, "density": 0.5}}]},
        {"models": []},
        {"models": "m"},
    ],
    ids=str,
)
def test_another_merge_is_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    document = {"merge_method": "task_arithmetic", "base_model": "b", "models": [], **changed}
    (tmp_path / "merge.yml").write_text(yaml.safe_dump(document))
    with pytest.raises(VectorFileError):
        read(tmp_path / "merge.yml")


@pytest.mark.parametrize("text", ["!!python/object/apply:os.getcwd []", "[", "{a: b", "text"])
def test_yaml_that_is_no_configuration_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "merge.yml").write_text(text)
    with pytest.raises(VectorFileError):
        read(tmp_path / "merge.yml")


# -- plain checkpoints ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "opt"])
def test_a_checkpoint_computes_what_steering_computes(family: str, tmp_path: Path) -> None:
    folder = saved(tiny_model(family), tmp_path / "base")
    torch.manual_seed(0)
    setting = steer.compose(
        a=Vector.of({1: torch.randn(32), 3: torch.randn(32)}), b=Vector.of({1: torch.randn(32)})
    )(a=0.5, b=-1.0)
    write(setting, tmp_path / "steered", "checkpoint", base=folder)
    lm = steer.Model(AutoModelForCausalLM.from_pretrained(folder).eval(), tiny_tokenizer())
    with torch.no_grad():
        plain = lm.hf_model(IDS).logits
        with lm.steered(setting):
            wanted = lm.hf_model(IDS).logits
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "steered").eval()(IDS).logits
    assert float((found - wanted).norm() / (wanted - plain).norm()) < 1e-4  # float32


@pytest.mark.parametrize("family", ["llama", "gemma2", "olmo2"])
def test_a_model_without_such_a_bias_is_refused(family: str, tmp_path: Path) -> None:
    folder = saved(tiny_model(family), tmp_path / "base")
    with pytest.raises(CapabilityError, match="cannot carry this"):
        write(Vector.of({1: torch.ones(32)}), tmp_path / "out", "checkpoint", base=folder)
    assert not (tmp_path / "out").exists()


def test_a_bias_that_something_else_reads_is_no_place(tmp_path: Path) -> None:
    """Of GPT-2's block only the bias behind its last sum is left to move."""
    model = tiny_model("gpt2")
    folder = saved(model, tmp_path / "base")
    write(Vector.of({2: torch.ones(32)}), tmp_path / "out", "checkpoint", base=folder)
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    moved = [
        name for name, value in model.state_dict().items() if not torch.equal(value, after[name])
    ]
    assert moved == ["transformer.h.2.mlp.c_proj.bias"]


def test_a_vector_that_does_not_fit_the_base_is_refused(tmp_path: Path) -> None:
    folder = saved(tiny_model("gpt2"), tmp_path / "base")
    for vector in (Vector.of({4: torch.ones(32)}), Vector.of({1: torch.ones(16)})):
        with pytest.raises(CapabilityError, match="cannot carry this"):
            write(vector, tmp_path / "out", "checkpoint", base=folder)
    for out, base in ((folder, folder), (tmp_path / "out", tmp_path / "none")):
        with pytest.raises(SteerError):
            write(Vector.of({1: torch.ones(32)}), out, "checkpoint", base=base)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("config", [{"model_type": "nope"}, {"model_type": "gpt2", "n_layer": "x"}])
def test_a_base_that_cannot_be_loaded_is_refused(config: dict[str, Any], tmp_path: Path) -> None:
    folder = saved(tiny_model("gpt2"), tmp_path / "base")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        write(Vector.of({1: torch.ones(32)}), tmp_path / "out", "checkpoint", base=folder)
    assert not (tmp_path / "out").exists()
