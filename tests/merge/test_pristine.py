"""Where the pristine weights are: in the checkpoint if its bits are the model's, else in a file."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from steer.algebra import Dense
from steer.errors import MergeError
from steer.merge import _pristine as pristine_module
from steer.merge import merger_of
from steer.network import Checkpoint
from tests.merge.parameters import bits, deltas_for, same
from tests.tiny import tiny_model


def loaded(folder: Path, family: str = "llama", **options: Any) -> Any:
    tiny_model(family, dtype=torch.bfloat16, **options).save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_checkpoint_serves_if_its_bits_are_the_models(
    tmp_path: Path, family: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = loaded(tmp_path, family)
    base, merger = bits(model), merger_of(model)
    with caplog.at_level(logging.INFO, logger="steer.merge"):
        merger.merge("a", deltas_for(model, 0.3))
    assert "unmerged weights in a file" not in caplog.text
    merger.leave("a")
    assert same(bits(model), base)


def test_what_differs_from_the_checkpoint_is_kept_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = loaded(tmp_path / "model")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    name = "model.layers.1.mlp.up_proj.weight"
    with torch.no_grad():
        model.get_parameter(name)[3, 4] += 1.0
    base, merger = bits(model), merger_of(model)
    with caplog.at_level(logging.INFO, logger="steer.merge"):
        merger.merge("a", deltas_for(model, 0.3))
    size = model.get_parameter(name).numel() * 2
    assert f"1 unmerged weights in a file of {size} bytes" in caplog.text
    assert os.listdir(tmp_path / "temporary") == []  # it has no name: no crash leaves it behind
    merger.leave("a")
    assert same(bits(model), base)


def test_another_dtype_than_the_checkpoints_is_kept_in_a_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_model("llama", dtype=torch.float32).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    base, merger = bits(model), merger_of(model)
    with caplog.at_level(logging.INFO, logger="steer.merge"):
        merger.merge("a", deltas_for(model, 0.3))
    size = sum(p.numel() * 2 for p in model.parameters())
    assert f"in a file of {size} bytes" in caplog.text
    merger.leave("a")
    assert same(bits(model), base)


def test_a_checkpoint_written_to_in_place_is_noticed(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    merger_of(model).merge("a", deltas_for(model, 0.3))
    with open(tmp_path / "model.safetensors", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(MergeError, match="written to"):
        merger_of(model).merge("a", deltas_for(model, 0.4))
    with pytest.raises(MergeError, match="written to"):
        merger_of(model).leave("a")
    assert merger_of(model).names == tuple(name for name, _ in model.named_parameters())


def test_a_lost_shard_keeps_no_other_parameter_from_being_put_back(tmp_path: Path) -> None:
    tiny_model("llama", dtype=torch.bfloat16).save_pretrained(tmp_path, max_shard_size="40KB")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    spilled = "model.norm.weight"
    with torch.no_grad():
        model.get_parameter(spilled).add_(1.0)
    base, merger = bits(model), merger_of(model)
    files = Checkpoint.open(tmp_path).files
    shard, lost = next((f, names) for f, names in files.items() if spilled not in names)
    merger.merge("a", deltas_for(model, 0.3))
    os.utime(tmp_path / shard, ns=(0, 0))  # as if it had been written to
    with pytest.raises(MergeError, match="written to"):
        merger.leave("a")
    assert set(merger.names) == set(lost)
    left = bits(model)
    assert all(torch.equal(left[name], base[name]) for name in base if name not in lost)
    with pytest.raises(MergeError, match="written to"):
        merger.merge("b", [(name, Dense(torch.ones(32)), 1.0) for name in lost if "norm" in name])
    rest = [delta for delta in deltas_for(model, 0.3) if delta[0] not in lost]
    merger.merge("b", rest)
    merger.leave("b")
    assert all(torch.equal(bits(model)[name], base[name]) for name in base if name not in lost)


def test_settings_that_exceed_the_dtype_alone_keep_no_other_from_being_put_back() -> None:
    model = tiny_model("llama", dtype=torch.float16)
    base, merger = bits(model), merger_of(model)
    first, name = "model.embed_tokens.weight", "model.norm.weight"
    merger.merge("down", [(name, Dense(torch.full((32,), -6e4)), 1.0)])
    merger.merge("up", [(name, Dense(torch.full((32,), 6e4)), 1.0)])
    merger.merge("down too", [(name, Dense(torch.full((32,), -6e4)), 1.0)])
    noise = Dense(torch.ones(128, 32))
    merger.merge("up", [(name, Dense(torch.full((32,), 6e4)), 1.0), (first, noise, 1.0)])
    with pytest.raises(MergeError, match=f"{name}: a merged weight is not finite"):
        merger.leave("up")
    assert torch.equal(bits(model)[first], base[first])
    merger.leave("down")
    merger.leave("down too")
    assert same(bits(model), base)
    assert merger.names == ()


def test_a_checkpoint_replaced_or_removed_does_no_harm(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    base = bits(model)
    merger_of(model).merge("a", deltas_for(model, 0.3))
    (tmp_path / "other").write_bytes(b"another file")
    os.replace(tmp_path / "other", tmp_path / "model.safetensors")
    merger_of(model).merge("a", deltas_for(model, 0.4))
    shutil.rmtree(tmp_path)
    merger_of(model).leave("a")
    assert same(bits(model), base)


def test_a_full_disk_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    base = bits(model)
    usage = shutil.disk_usage("/")._replace(free=100)
    monkeypatch.setattr(pristine_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(MergeError, match="cannot be kept on the disk"):
        merger_of(model).merge("a", deltas_for(model, 0.3))
    assert same(bits(model), base)
    assert merger_of(model).names == ()
