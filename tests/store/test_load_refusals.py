"""Files that are no good are refused with the reason, before anything is built from them."""

import hashlib
import io
import json
import os
import pickle
import struct
import zipfile

import pytest
import safetensors.torch
import torch

from steer.algebra import Vector
from steer.algebra._file.file import inspect_header, load
from steer.errors import VectorFileError
from tests.store.samples import DIGEST, KEY, forged, full, join, numbers, split, write


@pytest.fixture
def good(tmp_path) -> bytes:
    full().save(tmp_path / "good.safetensors")
    return (tmp_path / "good.safetensors").read_bytes()


def refusal(path) -> str:
    with pytest.raises(VectorFileError) as caught:
        load(path)
    error = caught.value
    assert str(path) in error.what
    assert all(str(part) for part in (error.found, error.expected, error.do))
    return str(error)


# -- what is not there, or is something else -------------------------------------------------------


def test_a_missing_file(tmp_path):
    assert "No such file" in refusal(tmp_path / "missing.safetensors")


def test_a_directory(tmp_path):
    assert "a directory" in refusal(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="named pipes are a POSIX matter")
def test_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "a device or pipe" in refusal(tmp_path / "pipe")


def torch_file() -> bytes:
    buffer = io.BytesIO()
    torch.save({"v": torch.ones(3)}, buffer)
    return buffer.getvalue()


def zip_file() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", "b")
    return buffer.getvalue()


FOREIGN = {
    "empty": (b"", "an empty file"),
    "one byte": (b"\x01", "not a safetensors file"),
    "torch.save": (torch_file(), "a zip archive"),
    "zip": (zip_file(), "a zip archive"),
    **{f"pickle {p}": (pickle.dumps({"v": [1] * 99}, p), "a pickle") for p in (2, 3, 4, 5)},
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(64), "steer.exchange.read(path)"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "numpy": (b"\x93NUMPY\x01\x00v\x00" + bytes(64), "a NumPy array"),
    "html": (b"<!DOCTYPE html><html></html>", "an HTML or XML page"),
    "json": (b'{"v": [1, 2, 3]}', "a JSON text"),
    "text": (b"hello world, this is a text", "not a safetensors file"),
    "zeros": (bytes(100), "not a safetensors file"),
    "ones": (b"\xff" * 100, "not a safetensors file"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_formats_are_named(kind, tmp_path):
    data, message = FOREIGN[kind]
    assert message in refusal(write(tmp_path / "x", data))


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    refusal(write(tmp_path / "x", pickle.dumps(Trap())))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [("model.layers.0.mlp.weight", "a model's weights"), ("q_proj.lora_A.weight", "PEFT adapter")],
)
def test_other_safetensors_files_are_named(name, message, tmp_path):
    tensors = {name: torch.ones(2, 2), "ids": torch.ones(2, dtype=torch.int64)}
    for metadata in (None, {"format": "pt"}):
        safetensors.torch.save_file(tensors, tmp_path / "x", metadata)
        found = refusal(tmp_path / "x")
        assert message in found
        assert name in found


def test_a_safetensors_file_without_tensors(tmp_path):
    assert "0 tensors" in refusal(write(tmp_path / "x", join({}, b"")))


# -- damage ----------------------------------------------------------------------------------------


def test_every_truncation_is_refused(good, tmp_path):
    for size in [*range(0, 40), *range(40, len(good), 97), len(good) - 1]:
        refusal(write(tmp_path / "x", good[:size]))


def test_bytes_behind_the_end_are_refused(good, tmp_path):
    for extra in (b"\0", b"\0" * 8, b"junk"):
        assert "longer than its header says" in refusal(write(tmp_path / "x", good + extra))


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, 2**25 + 1])
def test_absurd_header_lengths_are_refused(good, length, tmp_path):
    data = struct.pack("<Q", length) + good[8:]
    assert "not a safetensors file" in refusal(write(tmp_path / "x", data))


def test_a_header_beyond_the_limit_is_not_even_read(tmp_path):
    length = 2**25 + 8
    with open(tmp_path / "x", "wb") as file:
        file.write(struct.pack("<Q", length))
        file.truncate(8 + length)
    assert "not a safetensors file" in refusal(tmp_path / "x")


def test_a_changed_number_is_noticed(good, tmp_path):
    changed = bytearray(good)
    changed[-1] ^= 1
    assert "SHA-256" in refusal(write(tmp_path / "x", bytes(changed)))


def test_a_changed_description_is_noticed(good, tmp_path):
    changed = good.replace(b'\\"coefficient\\":-0.75', b'\\"coefficient\\":-0.25')
    assert changed != good
    assert "SHA-256" in refusal(write(tmp_path / "x", changed))
    assert DIGEST in refusal(tmp_path / "x")


def test_a_file_cut_while_it_is_read(good, tmp_path, monkeypatch):
    path = write(tmp_path / "x", good[:-8])
    real = os.fstat

    def before_the_cut(fd):
        result = list(real(fd))
        result[6] = len(good)
        return os.stat_result(result)

    monkeypatch.setattr(os, "fstat", before_the_cut)
    assert "cut while it was read" in refusal(path)


# -- the table of tensors --------------------------------------------------------------------------

NAME = "resid_post.2.v"


def entry(**members):
    return lambda header: header[NAME].update(members)


def drop(header):
    del header[NAME]


def shift(header):
    start, stop = header[NAME]["data_offsets"]
    header[NAME]["data_offsets"] = [start + 8, stop + 8]


TABLES = {
    "missing tensor": (drop, "without gap or overlap"),
    "integer dtype": (entry(dtype="I32"), "F16 | BF16 | F32 | F64"),
    "unknown dtype": (entry(dtype="F31"), "F16 | BF16 | F32 | F64"),
    "no dtype": (entry(dtype=None), "a string"),
    "dtype of another width": (entry(dtype="F16"), "8 bytes"),
    "negative shape": (entry(shape=[-4]), "shape"),
    "two negative dimensions": (entry(shape=[-2, -2]), "shape"),
    "Boolean shape": (entry(shape=[4, True]), "an integer"),
    "empty shape": (entry(shape=[0]), "shape"),
    "fractional shape": (entry(shape=[4.0]), "an integer"),
    "huge shape": (entry(shape=[2**62, 2**62]), "bytes"),
    "shape beyond 64 bits": (entry(shape=[2**64]), "65 bits"),
    "shape of text": (entry(shape="4"), "an array"),
    "many dimensions": (entry(shape=[1] * 17 + [4]), "at most 16"),
    "another shape": (entry(shape=[2, 2]), "differ from their description"),
    "offsets out of range": (entry(data_offsets=[10**6, 10**6 + 16]), "without gap or overlap"),
    "negative offsets": (entry(data_offsets=[-16, 0]), "at least 0"),
    "offsets the wrong way round": (entry(data_offsets=[48, 32]), "16 bytes"),
    "three offsets": (entry(data_offsets=[0, 8, 16]), "16 bytes"),
    "one offset": (entry(data_offsets=[16]), "16 bytes"),
    "Boolean offsets": (entry(data_offsets=[False, 16]), "an integer"),
    "offsets as an object": (entry(data_offsets={}), "an array"),
    "a hole or an overlap": (shift, "without gap or overlap"),
    "unknown member": (entry(strides=[1]), "strides"),
    "no object": (lambda header: header.update({NAME: [1]}), "an object"),
    "metadata no object": (lambda header: header.update({"__metadata__": 3}), "an object"),
    "metadata no text": (lambda header: header["__metadata__"].update({KEY: {}}), "a string"),
    "no checksum": (lambda header: header["__metadata__"].pop(DIGEST), "SHA-256"),
    "wrong checksum": (lambda header: header["__metadata__"].update({DIGEST: "0"}), "SHA-256"),
    "damaged description": (lambda header: header["__metadata__"].update({KEY: "{"}), "JSON"),
    "empty description": (lambda header: header["__metadata__"].update({KEY: ""}), "JSON"),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_that_do_not_fit_are_refused(case, good, tmp_path):
    change, message = TABLES[case]
    header, body = split(good)
    change(header)
    found = refusal(write(tmp_path / "x", join(header, body)))
    assert message in found


def test_tensors_of_one_size_that_traded_places_are_noticed(tmp_path):
    Vector.of({0: numbers(4), 1: numbers(4) + 1}).save(tmp_path / "good")
    header, body = split((tmp_path / "good").read_bytes())
    one, two = header["resid_post.0.v"], header["resid_post.1.v"]
    one["data_offsets"], two["data_offsets"] = two["data_offsets"], one["data_offsets"]
    assert "SHA-256" in refusal(write(tmp_path / "x", join(header, body)))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("[]", "an object"),
        ("nonsense", "JSON"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"__metadata__": {"steer.vector": "{}"}, "x": NaN}', "NaN"),
        ('{"x": Infinity}', "Infinity"),
        ('{"x": 1e999}', "the number inf"),
        ('{"x": ' + "9" * 5000 + "}", "JSON"),
        ('{"x": ' + "9" * 100 + "}", "2^63"),
        ('{"x": ' + "[" * 200_000, "too deeply"),
        ('{"x": ' + "[" * 50 + "]" * 50 + "}", "too deeply"),
        ('{"x": "\\ud800"}', "surrogate"),
        ('{"\\udc00": 1}', "surrogate"),
        ('{"x": "\ud800"}', "not UTF-8"),
    ],
)
def test_headers_that_are_no_good_json_are_refused(header, message, tmp_path):
    assert message in refusal(write(tmp_path / "x", join(header, b"")))


# -- the description, with a checksum that fits ----------------------------------------------------


def put(path: str, value: object):
    """A change of one value of the description; digits in the path index arrays."""

    def change(document):
        *parents, last = path.split("/")
        for key in parents:
            document = document[int(key)] if key.isdigit() else document[key]
        document[int(last) if last.isdigit() else last] = value

    return change


def without(path: str):
    def change(document):
        *parents, last = path.split("/")
        for key in parents:
            document = document[int(key)] if key.isdigit() else document[key]
        del document[int(last) if last.isdigit() else last]

    return change


def rewritten(old: str, new: str):
    def change(document):
        text = json.dumps(document)
        assert old in text
        return text.replace(old, new, 1)

    return change


MEMBERS = [
    *("format_version", "provenance", "sites", "layers", "tuning", "gate", "tensors"),
    *("provenance/method", "provenance/arguments", "provenance/domain", "provenance/pairs"),
    *("provenance/model", "provenance/license", "provenance/version", "provenance/model/model_id"),
    *("provenance/pairs_fingerprint", "provenance/model/revision", "provenance/model/n_layers"),
    *("provenance/model/d_model", "provenance/model/config", "provenance/model/tokenizer"),
    *("provenance/model/template", "sites/0/site", "sites/0/term", "layers/0/layer"),
    *("layers/0/norm", "layers/0/residual_norm", "layers/0/standard_error"),
    *("layers/0/split_half_cosine", "tuning/layer", "tuning/coefficient", "tuning/operator"),
    *("tuning/scope", "tuning/score", "tuning/kl", "gate/domains", "gate/layer", "gate/margin"),
    *("gate/accuracy", f"tensors/{NAME}/dtype", f"tensors/{NAME}/shape", f"tensors/{NAME}/sha256"),
]
OPTIONAL = {
    *("provenance/domain", "provenance/pairs_fingerprint", "provenance/model", "tuning"),
    *("provenance/license", "provenance/version", "provenance/model/revision"),
    *("layers/0/residual_norm", "layers/0/standard_error", "layers/0/split_half_cosine"),
    *("tuning/layer", "tuning/score", "tuning/kl", "gate/accuracy"),
}


@pytest.mark.parametrize("path", MEMBERS)
def test_every_member_is_required(path, good, tmp_path):
    refusal(write(tmp_path / "x", forged(good, without(path))))


@pytest.mark.parametrize("path", MEMBERS)
def test_every_member_has_one_type(path, good, tmp_path):
    wrong = [True, "", [1], {"a": 1}, -7.5]
    wrong += [] if path in OPTIONAL else [None]
    free = {
        "provenance/arguments": [{"a": 1}],
        "provenance/model/config": [""],
        "provenance/model/tokenizer": [""],
        "provenance/model/template": [""],
        "tuning/coefficient": [-7.5],
        "tuning/kl": [-7.5],
    }
    for value in wrong:
        path_x = write(tmp_path / "x", forged(good, put(path, value)))
        if value in free.get(path, []) and value is not True:
            load(path_x)
        else:
            refusal(path_x)


@pytest.mark.parametrize("path", sorted(OPTIONAL))
def test_optional_members_may_be_null(path, good, tmp_path):
    load(write(tmp_path / "x", forged(good, put(path, None))))


OBJECTS = ("", "provenance/", "provenance/model/", "sites/0/", "layers/0/", "tuning/", "gate/")


@pytest.mark.parametrize("path", [*OBJECTS, f"tensors/{NAME}/"])
def test_unknown_members_are_refused(path, good, tmp_path):
    assert "surprise" in refusal(write(tmp_path / "x", forged(good, put(path + "surprise", 1))))


DESCRIPTIONS = {
    "a newer version": (put("format_version", 2), "pip install --upgrade residual-steer"),
    "version 0": (put("format_version", 0), "format_version"),
    "Boolean version": (put("format_version", True), "an integer"),
    "no object": (lambda document: "[]", "an object"),
    "a text": (lambda document: '"x"', "an object"),
    "a key twice": (rewritten('"domain":', '"domain": "x", "domain":'), "twice"),
    "NaN": (rewritten('"score": 0.875', '"score": NaN'), "NaN"),
    "infinity": (rewritten('"score": 0.875', '"score": -Infinity'), "Infinity"),
    "beyond float64": (rewritten('"score": 0.875', '"score": 1e400'), "the number inf"),
    "huge integer": (rewritten('"pairs": 100', '"pairs": 1' + "0" * 400), "2^63"),
    "integer too long to read": (rewritten('"pairs": 100', '"pairs": 1' + "0" * 5000), "JSON"),
    "deep": (rewritten('"at": null', '"at": ' + "[" * 10_000 + "]" * 10_000), "too deeply"),
    "surrogate": (rewritten("medical", "\\ud800"), "surrogate"),
    "unreadable site": (put("sites/1/site", "resid_pre.2"), "unreadable site"),
    "negative layer": (put("sites/1/site", "resid_post.-2"), "unreadable site"),
    "site twice": (put("sites/1/site", "embed"), "embed twice"),
    "another layer": (put("sites/1/site", "resid_post.3"), "layers"),
    "unknown term": (put("sites/1/term", "tensor"), "'direction', 'low_rank' or 'dense'"),
    "term of another kind": (put("sites/1/term", "dense"), "missing"),
    "weight as a direction": (put("sites/4/term", "direction"), "missing"),
    "layer beyond the model": (put("provenance/model/n_layers", 5), "layers below 5"),
    "gate beyond the model": (put("gate/layer", 8), "layers below 8"),
    "width of the model": (put("provenance/model/d_model", 5), "one width"),
    "tuned elsewhere": (put("tuning/layer", 3), "tuning.layer"),
    "unknown scope": (put("tuning/scope", "everywhere"), "unknown scope"),
    "unreadable scope": (put("tuning/scope", "all[x]"), "unreadable scope"),
    "empty scope": (put("tuning/scope", "all[3:3]"), "range"),
    "score": (put("tuning/score", 1.01), "a number of at most 1"),
    "accuracy": (put("gate/accuracy", -0.1), "a number of at least 0"),
    "margin": (put("gate/margin", -1), "gate.margin"),
    "more names than centroids": (put("gate/domains", ["a", "b", "c", "d"]), "do not match"),
    "a name twice": (put("gate/domains", ["a", "a"]), "do not match"),
    "no names": (put("gate/domains", []), "do not match"),
    "no gate": (put("gate", None), "extra ['gate.centroids']"),
    "norm": (put("layers/1/norm", 3.0), "the norm of layer 2"),
    "negative norm": (put("layers/1/norm", -3.0), "layers.1.norm"),
    "layer twice": (put("layers/1/layer", 5), "layers"),
    "too few layers": (without("layers/0"), "layers"),
    "cosine": (put("layers/1/split_half_cosine", 1.5), "split_half_cosine"),
    "standard error": (put("layers/1/standard_error", -1.0), "standard_error"),
    "dtype": (put(f"tensors/{NAME}/dtype", "F64"), "differ from their description"),
    "shape": (put(f"tensors/{NAME}/shape", [2, 2]), "one width"),
    "width": (put(f"tensors/{NAME}/shape", [5]), "one width"),
    "checksum": (put(f"tensors/{NAME}/sha256", "0" * 64), "SHA-256"),
    "extra tensor": (put("tensors/x", {"dtype": "F32", "shape": [1], "sha256": "0"}), "['x']"),
    "missing site": (without("sites/4"), "extra ['weight:norm.weight.W']"),
    "no sites": (put("sites", []), "layers"),
}


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_descriptions_that_make_no_sense_are_refused(case, good, tmp_path):
    change, message = DESCRIPTIONS[case]
    found = refusal(write(tmp_path / "x", forged(good, change)))
    assert message in found


MANY = {
    "sites": (put("sites", [1] * 100_000), "sites.0"),
    "members": (lambda d: d["gate"].update({str(n): n for n in range(100_000)}), "unknown"),
    "tensors": (lambda d: d["tensors"].update({str(n): n for n in range(100_000)}), "tensors.0"),
}


@pytest.mark.parametrize("case", MANY)
def test_many_wrong_values_are_refused_at_the_first_in_few_words(case, good, tmp_path):
    change, message = MANY[case]
    found = refusal(write(tmp_path / "x", forged(good, change)))
    assert message in found
    assert len(found) < 1000


def test_a_forged_description_that_makes_sense_is_read(good, tmp_path):
    """The forger itself is sound: what the cases above refuse is the change, not the forgery."""
    vector = load(write(tmp_path / "x", forged(good, put("tuning/coefficient", 2))))
    assert vector.tuning.coefficient == 2.0
    assert isinstance(vector.tuning.coefficient, float)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_tensors_with_nan_or_infinity_are_refused_though_the_checksums_fit(bad, good, tmp_path):
    header, body = split(good)
    start, stop = header[NAME]["data_offsets"]
    values = struct.pack("<4f", 1.0, bad, 2.0, 3.0)
    data = join(header, body[:start] + values + body[stop:])
    digest = hashlib.sha256(values).hexdigest()
    data = forged(data, put(f"tensors/{NAME}/sha256", digest))
    assert f"1 of 4 values of '{NAME}'" in refusal(write(tmp_path / "x", data))


def test_inspecting_refuses_what_the_header_shows(good, tmp_path):
    inspect_header(write(tmp_path / "x", good))
    for data in (b"", good[:-1], forged(good, put("tuning/layer", 3))):
        with pytest.raises(VectorFileError):
            inspect_header(write(tmp_path / "x", data))
