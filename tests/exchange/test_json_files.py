"""`.svec` and vllm-lens: documents as the libraries write them, and what they do not mean."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steer.algebra import Vector
from steer.errors import ArgumentError, VectorFileError
from steer.exchange import read, write

ROWS = torch.arange(8.0).reshape(2, 4) / 3
VECTOR = Vector.of({2: ROWS[0], 5: ROWS[1]})


def svec(path: Path, directions: Any, **more: Any) -> Path:
    document = {"model_type": "llama", "directions": directions, "explained_variances": {}, **more}
    path.write_text(json.dumps(document))
    return path


def test_cast_reads_its_members(tmp_path: Path) -> None:
    write(VECTOR, tmp_path / "v.svec", model_type="llama")
    found = json.loads((tmp_path / "v.svec").read_text())
    assert found["model_type"] == "llama"
    assert {int(k): v for k, v in found["explained_variances"].items()} == {}
    values = {int(k): torch.tensor(v) for k, v in found["directions"].items()}
    assert all(torch.equal(values[n], VECTOR.direction(n)) for n in (2, 5))
    assert len(values) == 2


@pytest.mark.parametrize("positions", [False, True])
def test_a_svec_of_another_library_is_asked_about(positions: bool, tmp_path: Path) -> None:
    rows = {
        str(n): [v.tolist()] if positions else v.tolist() for n, v in zip((2, 5), ROWS, strict=True)
    }
    path = svec(tmp_path / "v.svec", rows)
    with pytest.raises(ArgumentError, match="does not say where"):
        read(path)
    assert torch.equal(read(path, at="output").direction(5), ROWS[1])
    moved = read(path, at="input")
    assert moved.layers == (1, 4)
    assert torch.equal(moved.direction(4), ROWS[1])
    assert moved.provenance.arguments["model"] == "llama"


@pytest.mark.parametrize(
    "directions",
    [{}, {"2": ROWS.tolist()}, {"x": [1.0]}, {"2": [1.0, "a"]}, {"2": [1e39]}, {"2": 1.0}, [1.0]]
    + [{key: [1.0], "2": [1.0]} for key in ("02", "1_0", " 1", "-1", "９")]
    + [{"2": []}],
)
def test_a_svec_that_is_no_map_of_directions_is_refused(directions: Any, tmp_path: Path) -> None:
    with pytest.raises(VectorFileError):
        read(svec(tmp_path / "v.svec", directions), at="output")


@pytest.mark.parametrize("domain", [5, ["a"], {"a": 1}])
def test_a_domain_that_is_no_text_is_refused(domain: Any, tmp_path: Path) -> None:
    path = svec(tmp_path / "v.svec", {"2": [1.0]}, steer={"domain": domain})
    with pytest.raises(VectorFileError, match="not a text"):
        read(path, at="output")


def lens(path: Path, data: bytes = ROWS.numpy().tobytes(), **changed: Any) -> Path:
    """Write the document of `ROWS` at layers 2 and 5, with members changed."""
    values = {"data": base64.b64encode(data).decode(), "dtype": "float32", "shape": [2, 4]}
    names = ("dtype", "original_dtype", "shape", "compression")
    values |= {name: changed.pop(name) for name in names if name in changed}
    document = {"activations": values, "layer_indices": [2, 5], "scale": 2.0, **changed}
    path.write_text(json.dumps(document))
    return path


def test_vllm_lens_decodes_what_is_written(tmp_path: Path) -> None:
    write(VECTOR, tmp_path / "v.json")
    found = json.loads((tmp_path / "v.json").read_text())
    values = found["activations"]
    assert "compression" not in values
    rows = np.frombuffer(base64.b64decode(values["data"]), np.dtype(values["dtype"]))
    assert np.array_equal(rows.reshape(values["shape"]), ROWS.numpy())
    assert found["layer_indices"] == [2, 5]
    assert (found["scale"], found["norm_match"], found["position_indices"]) == (1.0, False, None)


def test_a_compressed_document_is_read(tmp_path: Path) -> None:
    zstd = pytest.importorskip("zstandard")
    data = zstd.ZstdCompressor().compress(ROWS.bfloat16().view(torch.int16).numpy().tobytes())
    said = {"dtype": "int16", "original_dtype": "torch.bfloat16", "compression": "zstd"}
    found = read(lens(tmp_path / "v.json", data, **said))
    assert torch.equal(found.direction(5), ROWS[1].bfloat16())
    assert found.tuning is not None
    assert found.tuning.coefficient == 2.0
    with pytest.raises(VectorFileError):
        read(lens(tmp_path / "v.json", data[:-9], **said))
    with pytest.raises(VectorFileError):
        read(lens(tmp_path / "v.json", b"no zstd", **said))


@pytest.mark.parametrize(
    "changed",
    [
        {"norm_match": True},
        {"position_indices": [0, 1]},
        {"shape": [2, 1, 4]},
        {"shape": [2, 5]},
        {"layer_indices": [2]},
        {"layer_indices": [2, 2]},
        {"layer_indices": [2, True]},
        {"dtype": "object"},
        {"compression": "gzip"},
        {"original_dtype": "torch.bfloat16", "shape": [2, 8]},
        {"scale": "much"},
    ],
)
def test_a_document_that_means_something_else_is_refused(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(VectorFileError):
        read(lens(tmp_path / "v.json", **changed))
