"""What `from_pretrained` takes, and what it says where there is no model."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

import steer
from steer.errors import (
    ArchitectureError,
    ArgumentError,
    CapabilityError,
    CheckpointError,
    TextError,
)
from tests.tiny import tiny_model, tiny_tokenizer

ASKED = ["Is the dose safe?", "What is the price of the bond?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tiny_model("llama").save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def adapter(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a LoRA adapter whose configuration names the base model's folder."""
    path = tmp_path_factory.mktemp("adapter")
    base = steer.Model.from_pretrained(folder).hf_model
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PEFT's own use of transformers
        get_peft_model(base, config).save_pretrained(path)
    return path


def test_a_device_is_where_the_model_is_put(folder):
    for device in ("cpu", torch.device("cpu"), "auto"):
        lm = steer.Model.from_pretrained(folder, device=device)
        assert lm.hf_model.device.type == "cpu"
    assert isinstance(lm.generate(ASKED[0], max_new_tokens=2), str)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 3.5])
@pytest.mark.parametrize("name", ["device", "device_map"])
def test_a_device_that_is_not_there_is_refused_by_name(folder, name, device):
    with pytest.raises(CapabilityError, match="device"):
        steer.Model.from_pretrained(folder, **{name: device})


def test_device_and_device_map_are_not_both_given(folder):
    with pytest.raises(CapabilityError, match="device_map"):
        steer.Model.from_pretrained(folder, device="cpu", device_map="cpu")


@pytest.mark.parametrize("dtype", ["float32", torch.float32, "auto"])
def test_a_precision_may_be_named(folder, dtype):
    assert steer.Model.from_pretrained(folder, dtype=dtype).hf_model.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["float33", "Tensor", "int8", torch.int8, 16])
def test_a_precision_that_is_none_is_refused_by_name(folder, dtype):
    with pytest.raises(ArgumentError, match="bfloat16"):
        steer.Model.from_pretrained(folder, dtype=dtype)


def test_an_option_that_nobody_knows_is_refused_and_the_nearest_named(folder):
    with pytest.raises(CapabilityError, match=r"dtpye[\s\S]*dtype"):
        steer.Model.from_pretrained(folder, dtpye="float32")
    with pytest.raises(CapabilityError, match=r"layers[\s\S]*device_map"):
        steer.Model.from_pretrained(folder, layers=[1])


def test_an_adapter_is_loaded_on_its_base_with_the_tokenizer_of_the_base(folder, adapter):
    base, lm = steer.Model.from_pretrained(folder), steer.Model.from_pretrained(adapter)
    assert lm.info.model_id == str(adapter)
    assert lm.info.tokenizer == base.info.tokenizer
    aligned = steer.alignment_vector(folder, adapter, progress=False)
    with base.steered(aligned, 1.0):
        for ours, theirs in zip(lm.activations(ASKED), base.activations(ASKED), strict=True):
            assert torch.allclose(ours, theirs, rtol=0, atol=1e-4)
    assert not torch.allclose(lm.activations(ASKED)[0], base.activations(ASKED)[0], atol=1e-2)


def test_an_adapter_with_a_tokenizer_of_its_own_keeps_it(adapter, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(adapter, own)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(own)
    assert steer.Model.from_pretrained(own).generate(ASKED[0], max_new_tokens=2) is not None
    assert steer.Model.from_pretrained(own).tokenizer.chat_template == tokenizer.chat_template


@pytest.mark.parametrize("base", [None, "", "/not/there", 3])
def test_an_adapter_whose_base_is_not_there_says_so(adapter, tmp_path, base):
    lost = tmp_path / "lost"
    shutil.copytree(adapter, lost)
    config = json.loads((lost / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base
    (lost / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="adapter"):
        steer.Model.from_pretrained(lost)


def test_a_folder_without_a_model_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        steer.Model.from_pretrained(tmp_path)


def test_a_file_is_refused_with_the_folder_to_name(folder):
    with pytest.raises(CheckpointError, match="folder"):
        steer.Model.from_pretrained(folder / "model.safetensors")


@pytest.mark.parametrize("name", ["/not/there", "./not-there", "not/there/either", "~/not-there"])
def test_a_folder_that_is_not_there_is_refused_by_name(name):
    with pytest.raises(CheckpointError, match="no such folder"):
        steer.Model.from_pretrained(name)


@pytest.mark.parametrize("name", ["", "a\0b", "a b", None, 3, b"model"])
def test_what_names_no_model_is_refused_by_name(name):
    with pytest.raises(CheckpointError, match="not the name of a model"):
        steer.Model.from_pretrained(name)


def test_a_loaded_model_is_wrapped_and_not_loaded_again(folder):
    lm = steer.Model.from_pretrained(folder)
    for given in (lm, lm.hf_model):
        with pytest.raises(CheckpointError, match=r"steer\.Model\(hf_model, tokenizer\)"):
            steer.Model.from_pretrained(given)


@pytest.mark.parametrize("damage", ["config", "weights", "tokenizer", "no weights"])
def test_a_damaged_folder_is_refused_by_name(folder, tmp_path, damage):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    name = {"config": "config.json", "tokenizer": "tokenizer.json"}.get(damage, "model.safetensors")
    (broken / name).write_bytes((broken / name).read_bytes()[:100])
    if damage == "no weights":
        (broken / name).unlink()
    wanted = TextError if damage == "tokenizer" else CheckpointError
    with pytest.raises(wanted, match="broken"):
        steer.Model.from_pretrained(broken)


def test_a_model_that_the_hub_does_not_give_is_refused_by_name():
    with pytest.raises(CheckpointError, match="nobody/nothing"):
        steer.Model.from_pretrained("nobody/nothing", local_files_only=True)


def test_a_name_without_an_owner_that_the_hub_does_not_give_is_told_what_names_look_like():
    with pytest.raises(CheckpointError, match=r"no folder of that name[\s\S]*owner/name"):
        steer.Model.from_pretrained("smollm2", local_files_only=True)


@pytest.mark.parametrize("given", ["owner/name", None, 3, tiny_tokenizer()])
def test_what_is_no_model_is_not_wrapped(given):
    with pytest.raises(ArchitectureError, match=r"not a model[\s\S]*from_pretrained"):
        steer.Model(given)


def test_a_model_is_not_wrapped_twice(folder):
    with pytest.raises(ArchitectureError, match="hf_model"):
        steer.Model(steer.Model.from_pretrained(folder))


@pytest.mark.parametrize("given", ["owner/name", 3])
def test_what_is_no_tokenizer_is_refused(given):
    with pytest.raises(TextError, match="not a tokenizer"):
        steer.Model(tiny_model("llama"), given)
