"""What merging from disk to disk refuses, and that it leaves nothing behind."""

import hashlib
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steer import Vector
from steer.algebra import Direction, Residual
from steer.errors import CheckpointError, FitError, MergeError, VectorFileError
from steer.merge import _disk as disk
from steer.merge import merge_checkpoint
from tests.merge.checkpoints import saved, tensors, weight_vector
from tests.store.samples import forged, join, split


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    base = saved(tmp_path / "base")
    (tmp_path / "out").mkdir()
    merge_checkpoint(base, [], tmp_path / "out", progress=False)
    before = sorted(p.name for p in (tmp_path / "out").iterdir())
    for target in (tmp_path / "out", base, base / "config.json"):
        with pytest.raises(MergeError, match="the target is in use"):
            merge_checkpoint(base, [], target, progress=False)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == before
    with pytest.raises(MergeError, match="cannot be accessed"):
        merge_checkpoint(base, [], tmp_path / "no/where", progress=False)


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError("disk full"), MergeError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_failure_leaves_nothing_behind(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    raised: type[BaseException],
) -> None:
    base, aligned = saved(tmp_path / "base"), saved(tmp_path / "aligned", noise=0.01)
    write, calls = disk._write_shard, iter(range(100))

    def failing(*args: Any) -> None:
        if next(calls) == 2:
            raise error
        write(*args)

    monkeypatch.setattr(disk, "_write_shard", failing)
    with pytest.raises(raised):
        merge_checkpoint(base, [(aligned, 0.3)], tmp_path / "out", progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["aligned", "base"]


def test_a_disk_too_small_is_noticed_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = saved(tmp_path / "base")
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(MergeError, match="does not fit on the disk"):
        merge_checkpoint(base, [], tmp_path / "out", progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base"]


def test_residual_sites_are_refused(tmp_path: Path) -> None:
    base = saved(tmp_path / "base")
    mixed = weight_vector(base) + Vector({Residual(1): Direction(torch.ones(32))})
    with pytest.raises(MergeError, match="residual site"):
        merge_checkpoint(base, [(mixed, 1.0)], tmp_path / "out", progress=False)


def test_a_vector_of_another_model_is_refused(tmp_path: Path) -> None:
    base, other = saved(tmp_path / "base"), saved(tmp_path / "other", width=64)
    with pytest.raises(FitError, match="does not fit"):
        merge_checkpoint(base, [(weight_vector(other), 1.0)], tmp_path / "out", progress=False)


def test_checkpoints_of_different_shapes_are_refused_with_every_name(tmp_path: Path) -> None:
    base, other = saved(tmp_path / "base"), saved(tmp_path / "other", vocab=136)
    with pytest.raises(MergeError, match=r"embed_tokens.weight: \(128, 32\) and \(136, 32\)"):
        merge_checkpoint(base, [(other, 1.0)], tmp_path / "out", progress=False)
    fewer = saved(tmp_path / "fewer", layers=3)
    with pytest.raises(MergeError, match=r"layers.3.\S+: missing in the aligned"):
        merge_checkpoint(base, [(fewer, 1.0)], tmp_path / "out", progress=False)
    with pytest.raises(MergeError, match=r"layers.3.\S+: missing in the base"):
        merge_checkpoint(fewer, [(base, 1.0)], tmp_path / "out", progress=False)


def test_quantised_and_foreign_inputs_are_refused(tmp_path: Path) -> None:
    base, other = saved(tmp_path / "base"), saved(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "fp8"}})
    )
    with pytest.raises(MergeError, match="quantised"):
        merge_checkpoint(base, [(other, 1.0)], tmp_path / "out", progress=False)
    with pytest.raises(MergeError, match="quantised"):
        merge_checkpoint(other, [(base, 1.0)], tmp_path / "out", progress=False)
    (tmp_path / "text").write_text("no vector")
    with pytest.raises(VectorFileError):
        merge_checkpoint(base, [(tmp_path / "text", 1.0)], tmp_path / "out", progress=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError):
        merge_checkpoint(base, [(tmp_path / "empty", 1.0)], tmp_path / "out", progress=False)


def test_a_damaged_vector_file_is_refused(tmp_path: Path) -> None:
    base, path = saved(tmp_path / "base"), tmp_path / "v.safetensors"
    weight_vector(base).save(path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(VectorFileError, match="damaged"):
        merge_checkpoint(base, [(path, 1.0)], tmp_path / "out", progress=False)


def test_a_vector_file_with_nan_is_refused_though_the_checksums_fit(tmp_path: Path) -> None:
    base, path = saved(tmp_path / "base"), tmp_path / "v.safetensors"
    weight_vector(base).save(path)
    header, body = split(path.read_bytes())
    name, entry = next((n, e) for n, e in header.items() if n != "__metadata__")
    start, stop = entry["data_offsets"]
    values = struct.pack("<f", float("nan")) + body[start + 4 : stop]
    data = join(header, body[:start] + values + body[stop:])

    def digest(document: dict[str, Any]) -> None:
        document["tensors"][name]["sha256"] = hashlib.sha256(values).hexdigest()

    path.write_bytes(forged(data, digest))
    with pytest.raises(VectorFileError, match=r"v\.safetensors: a tensor holds NaN"):
        merge_checkpoint(base, [(path, 1.0)], tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_too_large_a_coefficient_is_refused_with_the_tensors_name(tmp_path: Path) -> None:
    base = saved(tmp_path / "base")
    with pytest.raises(MergeError, match=r"\S+.weight: a merged weight is not finite"):
        merge_checkpoint(base, [(weight_vector(base), 1e39)], tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "coefficient", ["1", True, None, float("nan"), float("inf"), 10**400, 1j, [1.0], b"1"]
)
def test_a_coefficient_that_is_no_number_is_refused(tmp_path: Path, coefficient: Any) -> None:
    base = saved(tmp_path / "base")
    with pytest.raises(MergeError, match="a pair with a finite number"):
        merge_checkpoint(
            base, [(weight_vector(base), coefficient)], tmp_path / "out", progress=False
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [None, 0.5, ("a", 1.0, 2.0), (0.5, "folder"), "ab", {}])
def test_what_is_no_pair_is_refused(tmp_path: Path, wrong: Any) -> None:
    base = saved(tmp_path / "base")
    with pytest.raises(MergeError, match="a pair with a finite number"):
        merge_checkpoint(base, [wrong], tmp_path / "out", progress=False)


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.float64, torch.tensor])
def test_numbers_of_libraries_are_coefficients(tmp_path: Path, kind: Any) -> None:
    base = saved(tmp_path / "base")
    parts = [(weight_vector(base), 2)]
    merge_checkpoint(base, parts, tmp_path / "plain", progress=False)
    merge_checkpoint(base, [(parts[0][0], kind(2))], tmp_path / "out", progress=False)
    for name, value in tensors(tmp_path / "plain").items():
        assert torch.equal(tensors(tmp_path / "out")[name], value)
