"""What is saved is loaded again, bit for bit, and every file of a vector is the same file."""

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steer.algebra import (
    Dense,
    Direction,
    LayerStats,
    LowRank,
    Provenance,
    Residual,
    Tuning,
    Vector,
    Weight,
    parse_scope,
)
from steer.algebra._file.file import inspect_header, load, save
from tests.store.samples import KEY, SAMPLES, bits, full, numbers, records

GOLDEN = Path(__file__).parent / "golden" / "version-1.safetensors"
GOLDEN_SHA256 = "44c32499a0b9a5b36a7cb0fecd385a41552595e769a483dfd051fb87661691ca"
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def assert_round_trip(vector: Vector, path: Path) -> Vector:
    vector.save(path)
    loaded = Vector.load(path)
    assert records(loaded) == records(vector)
    assert bits(loaded) == bits(vector)
    return loaded


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_vector_is_loaded_as_it_was_saved(sample, tmp_path):
    assert_round_trip(SAMPLES[sample](), tmp_path / "v.safetensors")


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    dtype=st.sampled_from(DTYPES),
    values=st.lists(st.floats(-6e4, 6e4, width=16), min_size=1, max_size=9),
    layers=st.lists(st.integers(-1, 99), min_size=1, max_size=4, unique=True),
    name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
    arguments=st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=4),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**62), 2**62)
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(st.characters(codec="utf-8"), max_size=4),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.text(st.characters(codec="utf-8"), max_size=2), inner, max_size=2
                )
            ),
            max_leaves=5,
        ),
        max_size=3,
    ),
    coefficient=st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_vector_is_loaded_as_it_was_saved(
    dtype, values, layers, name, arguments, coefficient, tmp_path
):
    v = torch.tensor(values, dtype=dtype)
    terms = {Residual(layer): Direction(v + index) for index, layer in enumerate(layers)}
    terms[Weight(name)] = Dense(v)
    tuning = Tuning(layers[0], coefficient)
    vector = Vector(terms, Provenance(method=name, arguments=arguments), tuning=tuning)
    assert_round_trip(vector, tmp_path / "v.safetensors")


@pytest.mark.parametrize("scope", ["after:</think>", "before:[/THINK][2:9]", "after:◁/think▷"])
def test_scopes_with_a_marker_are_saved_as_others_are(scope, tmp_path):
    tuning = Tuning(0, 0.5, scope=parse_scope(scope))
    assert_round_trip(
        Vector({Residual(0): Direction(numbers(3))}, tuning=tuning), tmp_path / "v.safetensors"
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_of_a_float_survives(dtype, tmp_path):
    info = torch.finfo(dtype)
    odd = [0.0, -0.0, info.max, info.min, info.tiny, info.smallest_normal, info.eps]
    tensor = torch.tensor(odd, dtype=dtype)
    tensor = torch.cat([tensor, (tensor[4:5] / 2)])  # a subnormal number
    assert_round_trip(Vector({Weight("w"): Dense(tensor)}), tmp_path / "v.safetensors")


def test_views_and_tensors_that_share_memory(tmp_path):
    base = numbers(6, 6)
    base.requires_grad_()
    vector = Vector(
        {
            Residual(0): Direction(base[:, 0]),
            Residual(1): Direction(base[0]),
            Residual(2): Direction(base[0, :1].expand(6)),
            Weight("transposed"): Dense(base.T),
            Weight("strided"): LowRank(base[::2, ::3], base[:2, ::2]),
        }
    )
    loaded = assert_round_trip(vector, tmp_path / "v.safetensors")
    pointers = [loaded.direction(layer).data_ptr() for layer in loaded.layers]
    assert len(set(pointers)) == 3
    loaded.direction(0).zero_()
    assert torch.equal(loaded.direction(1), base[0].detach())


def test_equal_vectors_give_equal_bytes(tmp_path):
    one, two, three = (tmp_path / name for name in "abc")
    vector = full()
    vector.save(one)
    reordered = Vector(
        dict(reversed(vector.terms.items())),
        Provenance(
            **{
                **{n: getattr(vector.provenance, n) for n in Provenance.__slots__},
                "arguments": dict(reversed(vector.provenance.arguments.items())),
            }
        ),
        dict(reversed(vector.stats.items())),
        vector.tuning,
        vector.gate,
    )
    reordered.save(two)
    Vector.load(one).save(three)
    assert one.read_bytes() == two.read_bytes() == three.read_bytes()


def test_numbers_are_written_alike_whatever_their_python_type(tmp_path):
    import numpy as np

    files = []
    for index, one in enumerate((1, 1.0, np.float32(1), np.float64(1), torch.tensor(1.0))):
        vector = Vector(
            {Residual(0): Direction(numbers(3))}, stats={0: LayerStats(one)}, tuning=Tuning(0, one)
        )
        vector.save(tmp_path / f"{index}")
        files.append((tmp_path / f"{index}").read_bytes())
    assert len(set(files)) == 1


def test_the_golden_file(tmp_path):
    """Files of version 1 stay readable, and what we write today is version 1 to the byte."""
    assert hashlib.sha256(GOLDEN.read_bytes()).hexdigest() == GOLDEN_SHA256
    loaded = load(GOLDEN)
    assert records(loaded) == records(full())
    assert bits(loaded) == bits(full())
    full().save(tmp_path / "v.safetensors")
    assert (tmp_path / "v.safetensors").read_bytes() == GOLDEN.read_bytes()


def test_the_safetensors_library_reads_our_files(tmp_path):
    path = tmp_path / "v.safetensors"
    full().save(path)
    found = safetensors.torch.load_file(path)
    assert torch.equal(found["resid_post.2.v"], full().direction(2))
    assert torch.equal(found["weight:norm.weight.W"], full().terms[Weight("norm.weight")].W)
    assert torch.equal(found["gate.centroids"], full().gate.centroids)
    assert len(found) == 8


def test_files_rewritten_by_the_safetensors_library_are_read(tmp_path):
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    full().save(ours)
    with safetensors.safe_open(ours, framework="pt") as file:
        metadata = {**file.metadata(), "format": "pt", "note": ""}
    safetensors.torch.save_file(safetensors.torch.load_file(ours), theirs, metadata)
    assert records(load(theirs)) == records(full())
    assert bits(load(theirs)) == bits(full())


def test_every_tensor_begins_at_a_multiple_of_its_element_size(tmp_path):
    full().save(tmp_path / "v")
    data = (tmp_path / "v").read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    table = json.loads(data[8 : 8 + length])
    sizes = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
    entries = [entry for name, entry in table.items() if name != "__metadata__"]
    assert all(entry["data_offsets"][0] % sizes[entry["dtype"]] == 0 for entry in entries)


def test_the_header_alone(tmp_path):
    path = tmp_path / "v.safetensors"
    full().save(path)
    header = inspect_header(path)
    with safetensors.safe_open(path, framework="pt") as file:
        assert header == json.loads(file.metadata()[KEY])
    assert header["format_version"] == 1
    assert header["provenance"]["method"] == "palrs"
    assert header["provenance"]["arguments"] == {
        "layers": [2, 5],
        "rescale": True,
        "note": "naïve",
        "at": None,
    }
    assert [entry["norm"] for entry in header["layers"]] == pytest.approx(
        [full()[layer].norm() for layer in (-1, 2, 5)]
    )
    assert header["tuning"]["scope"] == "response[0:9]"
    assert header["gate"]["domains"] == ["medical", "legal"]


# -- writing ---------------------------------------------------------------------------------------


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "v.safetensors"
    path.write_bytes(b"old")
    full().save(str(path))
    assert records(load(str(path))) == records(full())
    assert os.listdir(tmp_path) == ["v.safetensors"]


@pytest.mark.skipif(os.name != "posix", reason="permissions and symbolic links are POSIX matters")
def test_a_file_has_the_permissions_of_any_new_file(tmp_path):
    path, before = tmp_path / "v.safetensors", os.umask(0o027)
    try:
        full().save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.skipif(os.name != "posix", reason="permissions and symbolic links are POSIX matters")
def test_a_symbolic_link_stays_a_link(tmp_path):
    target, link = tmp_path / "target.safetensors", tmp_path / "link.safetensors"
    target.write_bytes(b"old")
    link.symlink_to(target)
    save(full(), link)
    assert link.is_symlink()
    assert records(load(target)) == records(full())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "v.safetensors"
    full().save(path)
    before = path.read_bytes()
    for name in ("fsync", "replace"):

        def fail(*args):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(ValueError, match="No space left"):
                Vector.of({0: numbers(3)}).save(path)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["v.safetensors"]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        full().save(tmp_path / "v.safetensors")
    assert os.listdir(tmp_path) == []
