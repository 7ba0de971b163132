"""Small files that would cost much time or memory, and messages that would be long."""

import json
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import steer
from steer import errors
from steer.alignment import alignment_vector
from steer.errors import AlignmentError, CheckpointError, SelectionError, SteerError
from steer.extract import Activations
from steer.network import Checkpoint
from tests.attacks.writers import checkpoint, swept
from tests.store.samples import forged, full, join, split

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, SteerError)
]
JUNK = {
    "objects": b"{}",
    "arrays": b"[]",
    "numbers": b"1",
    "texts": b'""',
}


def message(load: Any, path: Path) -> str:
    with pytest.raises(SteerError) as caught:
        load(path)
    assert len(str(caught.value).encode()) <= 4096
    return str(caught.value)


# -- headers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [steer.Vector.load, Activations.load])
@pytest.mark.parametrize("junk", JUNK)
def test_a_header_of_millions_of_values_is_refused_before_it_is_parsed(
    junk: str, load: Any, tmp_path: Path
) -> None:
    values = b",".join([JUNK[junk]] * 2_200_000)
    header = b'{"__metadata__":{},"x":[' + values + b"]}"
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header)
    assert "at most 2097152" in message(load, tmp_path / "x")


def test_a_description_within_a_header_is_bounded_as_well(tmp_path: Path) -> None:
    """Escaped, its quotation marks are no separators; they are counted when it is read itself."""
    text = "[" + ",".join(["1"] * 2_200_000) + "]"
    header = json.dumps({"__metadata__": {"steer.vector": text}}).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header)
    assert "at most 2097152" in message(steer.Vector.load, tmp_path / "x")


def test_the_largest_models_stay_within_the_bound(tmp_path: Path) -> None:
    """36,000 matrices of experts, each with a low-rank term, as the largest open models have."""
    count = 100
    terms = {
        steer.Weight(f"model.layers.{k}.mlp.experts.{k}.down_proj.weight"): steer.LowRank(
            torch.ones(2, 1), torch.ones(1, 2)
        )
        for k in range(count)
    }
    steer.Vector(terms).save(tmp_path / "v.safetensors")
    assert len(steer.Vector.load(tmp_path / "v.safetensors")) == count
    data = (tmp_path / "v.safetensors").read_bytes()
    header = data[8 : 8 + struct.unpack("<Q", data[:8])[0]]
    assert sum(header.count(c) for c in b",:[{") * 36_000 / count <= 2**21


# -- messages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("filling", ["x", "é", "猫", "😀", "\ud800", "\n"])
def test_a_message_is_at_most_four_kilobytes_of_valid_text(
    kind: type[SteerError], filling: str
) -> None:
    for many in ("what", "found", "expected", "do", "all"):
        parts = {
            name: f"<{name}>" + filling * (200_000 if many in (name, "all") else 1) + f"</{name}>"
            for name in ("what", "found", "expected", "do")
        }
        error = kind(parts.pop("what"), **parts)  # type: ignore[arg-type]
        assert len(str(error).encode("utf-8")) <= 4096
        for end in ("what", "found", "expected", "do"):
            assert f"<{end}>" in str(error)
            assert f"</{end}>" in str(error)
        assert error.found == parts["found"]


def test_a_message_that_fits_is_left_as_it_is() -> None:
    error = SteerError("w" * 900, found="f" * 1900, expected="e" * 1000, do="d" * 200)
    for letter, count in {"w": 900, "f": 1900, "e": 1000, "d": 200}.items():
        assert letter * count in str(error)


def test_a_file_with_endless_names_gives_a_short_message(tmp_path: Path) -> None:
    name = "n" * 2_000_000
    save_file({name: torch.ones(2)}, tmp_path / "x")
    assert "nnn" in message(steer.Vector.load, tmp_path / "x")
    full().save(tmp_path / "v")
    data = forged((tmp_path / "v").read_bytes(), lambda d: d.update({name: 1}))
    (tmp_path / "v").write_bytes(data)
    assert "nnn" in message(steer.Vector.load, tmp_path / "v")


# -- sweeps ----------------------------------------------------------------------------------------


def test_a_large_file_that_is_no_sweeps_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with open(path, "wb") as file:
        file.write(b"{")
        file.truncate(2**40)  # a hole, which takes no place on the disk
    with pytest.raises(SelectionError, match="is damaged"):
        swept(path)


def test_a_sweep_file_with_an_endless_tail_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    found = swept(path)
    with open(path, "ab") as file:
        file.truncate(2**40)
    assert swept(path).rows == found.rows


def test_an_endless_row_of_a_sweep_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    swept(path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE steer_sweep_3 SET content = zeroblob(100000000)")
    with pytest.raises(SelectionError, match="too big"):
        swept(path)


# -- checkpoints and adapters ----------------------------------------------------------------------


def adapter(folder: Path, **entries: Any) -> Path:
    """A LoRA adapter of one matrix of the model that `checkpoint` wrote."""
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config | entries))
    name = "model.layers.0.self_attn.q_proj"
    shape = Checkpoint.open(checkpoint()).tensor(f"{name}.weight").shape
    factors = {
        f"base_model.model.{name}.lora_A.weight": torch.ones(2, shape[1]),
        f"base_model.model.{name}.lora_B.weight": torch.ones(shape[0], 2),
    }
    save_file(factors, folder / "adapter_model.safetensors")
    return folder


def test_the_adapter_itself_is_read(tmp_path: Path) -> None:
    found = alignment_vector(
        checkpoint(), adapter(tmp_path / "a", rank_pattern={r"layers\.0\..*q_proj": 2})
    )
    assert len(found) == 1


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+b", "(.*)*x", "(a|a)*b", "(x{1,9}){1,9}y", ".*.*.*.*.*.*.*z", "a" * 1000, "(", "[a"],
)
@pytest.mark.parametrize("where", ["rank_pattern", "alpha_pattern"])
def test_expressions_that_never_end_are_refused(pattern: str, where: str, tmp_path: Path) -> None:
    with pytest.raises(AlignmentError, match="this adapter is not supported"):
        alignment_vector(checkpoint(), adapter(tmp_path / "a", **{where: {pattern: 2}}))


@pytest.mark.parametrize(
    "entries",
    [
        {"r": float("inf")},
        {"r": 0},
        {"lora_alpha": float("nan")},
        {"lora_alpha": 10**400},
        {"lora_alpha": [1]},
        {"alpha_pattern": {"q_proj": "much"}},
        {"alpha_pattern": 3},
        {"rank_pattern": {"q_proj": None}},
    ],
    ids=str,
)
def test_scales_that_are_no_numbers_are_refused(entries: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(AlignmentError):
        alignment_vector(checkpoint(), adapter(tmp_path / "a", **entries))


NESTED = "[" * 200_000


@pytest.mark.parametrize("text", [NESTED, '{"a":' * 200_000, "{" + " " * 2**24, "[]", "\xff"])
def test_a_configuration_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    (folder / "adapter_config.json").write_text(text, encoding="latin-1")
    with pytest.raises(AlignmentError) as caught:
        alignment_vector(checkpoint(), folder)
    assert len(str(caught.value).encode()) <= 4096


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_checkpoint_with_such_a_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(NESTED)
    with pytest.raises(CheckpointError):
        Checkpoint.open(tmp_path)
    with open(tmp_path / name, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(CheckpointError, match="too long"):
        Checkpoint.open(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory in use")
def test_a_tensor_that_no_memory_holds_is_refused_by_name(tmp_path: Path) -> None:
    """A hole of a file takes no place on the disk, and all of it in memory."""
    import resource

    path, count = tmp_path / "v", 2**30
    steer.Vector({steer.Weight("w"): steer.Dense(torch.ones(4))}).save(path)
    data = forged(
        path.read_bytes(), lambda d: d["tensors"]["weight:w.W"].update({"shape": [count]})
    )
    header, _ = split(data)
    header["weight:w.W"] |= {"shape": [count], "data_offsets": [0, 4 * count]}
    path.write_bytes(join(header, b""))
    with open(path, "ab") as file:
        file.truncate(file.tell() + 4 * count)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**30, before[1]))
    try:
        assert "does not fit into memory" in message(steer.Vector.load, path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
