"""Checkpoints are read lazily, from shards or one file, and nothing else is taken for one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from steer.errors import CheckpointError
from steer.network import Checkpoint
from tests.alignment.models import saved
from tests.tiny import tiny_model

INDEX = "model.safetensors.index.json"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return saved(tiny_model("llama", layers=1), tmp_path / "model")


def test_a_sharded_checkpoint_gives_every_tensor_of_the_model(sharded: Path) -> None:
    checkpoint = Checkpoint.open(str(sharded))
    state = tiny_model("llama", layers=1).state_dict()
    assert len(checkpoint.files) > 2
    assert checkpoint.config["model_type"] == "llama"
    assert sorted(checkpoint.names) == sorted(state)
    assert {n for names in checkpoint.files.values() for n in names} == set(state)
    for name, value in state.items():
        assert name in checkpoint.names
        assert checkpoint.tensor(name).dtype == value.dtype
        assert checkpoint.tensor(name).shape == value.shape
        assert torch.equal(checkpoint.tensor(name), value)


def test_a_single_file_of_any_name_will_do(tmp_path: Path) -> None:
    for name in ("model.safetensors", "consolidated.safetensors"):
        folder = tmp_path / name.split(".")[0]
        folder.mkdir()
        save_file({"w": torch.arange(6.0).reshape(2, 3).to(torch.bfloat16)}, folder / name)
        checkpoint = Checkpoint.open(folder)
        assert checkpoint.tensor("w").dtype is torch.bfloat16
        assert checkpoint.tensor("w").tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def test_a_tensor_is_a_view_of_the_file(sharded: Path) -> None:
    checkpoint = Checkpoint.open(sharded)
    name = next(iter(checkpoint.names))
    again = Checkpoint.open(sharded)
    assert checkpoint.tensor(name).data_ptr() != again.tensor(name).data_ptr()
    assert checkpoint.tensor(name).data_ptr() == checkpoint.tensor(name).data_ptr()


def test_the_hub_s_cache_is_read_by_id(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the files of the index are asked for, after the index itself."""
    asked: list[list[str]] = []

    def snapshot(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert (name, revision) == ("org/model", "main")
        asked.append(allow_patterns)
        return str(sharded)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    checkpoint = Checkpoint.open("org/model", revision="main")
    assert set(checkpoint.files) <= set(asked[1])
    assert not [pattern for pattern in asked[0] if "safetensors" in pattern.replace(".json", "")]


def _no_index(folder: Path) -> None:
    (folder / INDEX).unlink()


def _missing_shard(folder: Path) -> None:
    sorted(folder.glob("model-*.safetensors"))[0].unlink()


def _truncated(folder: Path) -> None:
    path = sorted(folder.glob("model-*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:-8])


def _lfs_pointer(folder: Path) -> None:
    path = sorted(folder.glob("model-*.safetensors"))[0]
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def _foreign_shard(folder: Path) -> None:
    path = sorted(folder.glob("model-*.safetensors"))[0]
    save_file({**load_file(path), "stranger": torch.ones(1)}, path)


def _path_outside(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    shutil.copy(folder / "config.json", folder.parent / "x.safetensors")
    index["weight_map"]["w"] = "../x.safetensors"
    (folder / INDEX).write_text(json.dumps(index))


def _broken_index(folder: Path) -> None:
    (folder / INDEX).write_text("{}")


def _broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("[1")


def _pickles(folder: Path) -> None:
    for path in (*folder.glob("*.safetensors"), folder / INDEX):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_no_index, "with its shards"),
        (_missing_shard, "names 'model-00001"),
        (_truncated, "damaged"),
        (_lfs_pointer, "git lfs pull"),
        (_foreign_shard, "stranger"),
        (_path_outside, "files of the folder itself"),
        (_broken_index, "weight_map"),
        (_broken_config, "config.json"),
        (_pickles, "pickles are never read"),
    ],
)
def test_what_is_no_checkpoint_is_refused(
    sharded: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(sharded)
    with pytest.raises(CheckpointError, match=words):
        Checkpoint.open(sharded)


def test_a_name_in_two_files_and_an_unknown_name_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"w": torch.ones(2)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match="each tensor once"):
        Checkpoint(tmp_path, {}, ["a.safetensors", "b.safetensors"])
    with pytest.raises(CheckpointError, match="no tensor 'v'"):
        Checkpoint(tmp_path, {}, ["a.safetensors"]).tensor("v")


def test_a_name_that_is_no_folder_and_not_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*args: object, **kwargs: object) -> str:
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", nothing)
    with pytest.raises(CheckpointError, match="the Hub does not provide it"):
        Checkpoint.open("org/none")
