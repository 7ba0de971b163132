"""GGUF control vectors: what their readers see, and what files of other tools mean."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steer.algebra import Provenance, Vector
from steer.errors import ArgumentError, SteerError, VectorFileError
from steer.exchange import read, write

gguf = pytest.importorskip("gguf")

VALUES = {layer: torch.arange(4.0) + layer for layer in (1, 2, 5)}


def file(path: Path, *, count: str = "uint32", layers: Any = (1, 2, 5), **keys: Any) -> Path:
    """Write a control vector as other tools do: `count` is the type of its layer count."""
    out = gguf.GGUFWriter(path, keys.pop("architecture", "controlvector"))
    out.add_string("controlvector.model_hint", "llama")
    if count:
        getattr(out, f"add_{count}")("controlvector.layer_count", len(layers))
    for key, value in keys.items():
        add = out.add_float32 if isinstance(value, float) else out.add_string
        if isinstance(value, list):
            add = out.add_array
        add(key.replace("__", "."), value)
    for layer in layers:
        values = np.arange(4, dtype=keys.get("dtype", np.float32)) + np.float32(layer)
        out.add_tensor(f"direction.{layer}", values.astype(np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def test_the_package_of_llama_cpp_reads_what_is_written(tmp_path: Path) -> None:
    write(Vector.of(VALUES), tmp_path / "v.gguf", model_hint="llama")
    found = gguf.GGUFReader(tmp_path / "v.gguf")
    assert found.fields["general.architecture"].contents() == "controlvector"
    assert found.fields["controlvector.model_hint"].contents() == "llama"
    assert found.fields["controlvector.layer_count"].contents() == 3
    said = {f"steer.{name}": found.fields[f"steer.{name}"].contents() for name in OWN}
    assert said == {f"steer.{name}": value for name, value in OWN.items()}
    assert [tensor.name for tensor in found.tensors] == [f"direction.{layer}" for layer in VALUES]
    for tensor, values in zip(found.tensors, VALUES.values(), strict=True):
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert np.array_equal(tensor.data, values.numpy())


OWN = {"operation": "add", "hook_point": "resid_post", "scope": "all"}


def test_wide_values_are_rounded_to_float32(tmp_path: Path) -> None:
    v = torch.tensor([1.0, 1 / 3], dtype=torch.float64)
    write(Vector.of({2: v}), tmp_path / "v.gguf")
    assert torch.equal(read(tmp_path / "v.gguf").direction(2), v.float())


def test_a_repeng_file_is_read_at_its_layers(tmp_path: Path) -> None:
    found = read(file(tmp_path / "v.gguf"))
    assert found.layers == (1, 2, 5)
    assert torch.equal(found.direction(5), VALUES[5])
    assert found.provenance.arguments["model"] == "llama"


def test_a_file_with_layer_0_is_read_though_llama_cpp_refuses_it(tmp_path: Path) -> None:
    path = file(tmp_path / "v.gguf", count="", layers=(0, 1), controlvector__method="diffmean")
    found = read(path)
    assert found.layers == (0, 1)
    assert found.provenance.arguments["method"] == "diffmean"


@pytest.mark.parametrize("count", ["int32", ""])
def test_a_generator_file_is_asked_about(count: str, tmp_path: Path) -> None:
    path = file(tmp_path / "v.gguf", count=count)
    with pytest.raises(ArgumentError, match="does not say at which layers"):
        read(path)
    assert read(path, layers="applied").layers == (1, 2, 5)
    assert read(path, layers="measured").layers == (0, 1, 4)
    with pytest.raises(ArgumentError, match="layers is not what the format"):
        read(path, layers="both")


@pytest.mark.parametrize(
    "keys",
    [
        {"architecture": "llama"},
        {"glp__mode": "project"},
        {"steer__operation": "ablate"},
        {"steer__hook_point": "mlp_out"},
        {"steer__scope": "some"},
        {"steer__coefficient": float("nan")},
        {"steer__coefficient": "much"},
    ],
)
def test_a_file_that_means_something_else_is_refused(keys: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(VectorFileError):
        read(file(tmp_path / "v.gguf", **keys))


def test_other_keys_of_any_type_do_no_harm(tmp_path: Path) -> None:
    path = file(tmp_path / "v.gguf", x__list=[1, 2, 3], x__names=["a", "b"], x__text="text")
    assert read(path).layers == (1, 2, 5)


def test_the_records_of_a_vector_travel_in_keys_of_our_own(tmp_path: Path) -> None:
    vector = Vector(Vector.of(VALUES).terms, Provenance("palrs", domain="medical"))
    write(vector, tmp_path / "v.gguf")
    made = read(tmp_path / "v.gguf").provenance
    assert (made.domain, made.arguments["method"]) == ("medical", "palrs")


@pytest.mark.parametrize("shape", [(2, 2), ()])
def test_tensors_of_other_shapes_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    out = gguf.GGUFWriter(tmp_path / "v.gguf", "controlvector")
    out.add_tensor("direction.1", np.ones(shape, dtype=np.float32))
    for step in ("header", "kv_data", "tensors"):
        getattr(out, f"write_{step}_to_file")()
    out.close()
    with pytest.raises(SteerError):
        read(tmp_path / "v.gguf", layers="applied")


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    """An array of 2^40 numbers, and 2^60 keys, in a file of some bytes."""
    array = b"\x01" + bytes(7) + b"a" + b"\x09\0\0\0" + b"\0\0\0\0" + (2**40).to_bytes(8, "little")
    for keys, rest in ((1, array), (2**60, b"")):
        head = b"GGUF\x03\0\0\0" + bytes(8) + keys.to_bytes(8, "little")
        (tmp_path / "v.gguf").write_bytes(head + rest)
        with pytest.raises(VectorFileError):
            read(tmp_path / "v.gguf")


def test_tensors_that_share_bytes_are_no_more_than_the_file(tmp_path: Path) -> None:
    """A thousand names for the same megabytes would be as many copies of them."""
    path = tmp_path / "v.gguf"
    many = {f"direction.{k}": (2**18, 1, 0) for k in range(1, 9)}
    path.write_bytes(_raw(many, bytes(2**19)))
    with pytest.raises(VectorFileError, match="bytes in a file of"):
        read(path, layers="applied")
    path.write_bytes(_raw({"direction.1": (2**18, 1, 0)}, bytes(2**19)))
    assert read(path, layers="applied").d_model == 2**18


def _raw(tensors: dict[str, tuple[int, int, int]], data: bytes) -> bytes:
    """A control vector's file: by name the number of elements, the type and the place."""

    def text(value: str) -> bytes:
        return len(value).to_bytes(8, "little") + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 1)
    head += text("general.architecture") + struct.pack("<I", 8) + text("controlvector")
    for name, (size, kind, at) in tensors.items():
        head += text(name) + struct.pack("<IQIQ", 1, size, kind, at)
    return head + bytes(-len(head) % 32) + data


def test_without_the_package_writing_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steer._check.find_spec", lambda name: None)
    with pytest.raises(SteerError, match=r"residual-steer\[gguf\]"):
        write(Vector.of(VALUES), tmp_path / "v.gguf")
    assert read(file(tmp_path / "w.gguf")).layers == (1, 2, 5)
