"""Recordings are kept, joined and copied whole; a file that is no good is refused."""

import copy
import hashlib
import json
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steer.algebra import Vector
from steer.errors import ArgumentError, RecordingError, VectorFileError
from steer.extract import Activations, mean_difference, record
from tests.extract.reference import off, some_pairs, tiny
from tests.store.samples import full

PAIRS = some_pairs(9)
AT = ["template", "response_mean"]
KEY = "steer.activations"


def recorded(pairs=PAIRS, **options) -> Activations:
    return record(tiny(), pairs, options.pop("at", AT), progress=False, **options)


@pytest.fixture(scope="module")
def whole() -> Activations:
    return recorded()


@pytest.fixture(scope="module")
def data(whole, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "a.safetensors"
    whole.save(path)
    return path.read_bytes()


def same(left: Activations, right: Activations) -> bool:
    """Whether two recordings are equal, bit for bit."""
    records = [
        (a.layers, dict(a.recordings), a.model, a.path, list(a.moments)) for a in (left, right)
    ]
    return records[0] == records[1] and all(
        (m.count, m.half_counts) == (n.count, n.half_counts)
        and all(map(torch.equal, tensors(m), tensors(n)))
        for m, n in zip(left.moments.values(), right.moments.values(), strict=True)
    )


def tensors(m):
    return [m.mean_chosen, m.mean_rejected, m.second, *m.halves, m.norm]


def test_a_recording_is_read_as_it_was_saved(whole, tmp_path):
    for activations in (whole, recorded(some_pairs(1, (None,)), at="template[-1]", layers=[2])):
        activations.save(tmp_path / "a.safetensors")
        found = Activations.load(tmp_path / "a.safetensors")
        assert same(found, activations)
        assert repr(found) == repr(activations)
    nameless = replace(whole, model=None)
    nameless.save(tmp_path / "a.safetensors")
    assert same(Activations.load(tmp_path / "a.safetensors"), nameless)


def test_equal_recordings_give_equal_bytes(whole, data, tmp_path):
    Activations.load(_written(tmp_path, data)).save(tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == data


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
def test_copies_are_equal(whole, copied):
    twin = copied(whole)
    assert same(twin, whole)
    with pytest.raises(TypeError):
        twin.moments["x"] = None


def test_a_sum_is_the_recording_of_all_pairs(whole):
    parts = PAIRS[:4], PAIRS[4:]  # the second begins with an even number of pairs
    first, second = (recorded(part) for part in parts)
    both = first + second
    assert (both.layers, both.model, both.path) == (whole.layers, whole.model, whole.path)
    for key, moments in both.moments.items():
        assert moments.count == whole.moments[key].count
        for found, expected in zip(tensors(moments), tensors(whole.moments[key]), strict=True):
            assert off(found, expected) < 1e-5
    mark = both.pairs_fingerprints["law"]
    assert mark not in (first.pairs_fingerprints["law"], second.pairs_fingerprints["law"])
    assert mark == (recorded(parts[0]) + second).pairs_fingerprints["law"]


def test_pairs_are_counted_once_in_any_sum(whole, tmp_path):
    a, b, c = (recorded(part) for part in (PAIRS[:3], PAIRS[3:6], PAIRS[6:]))
    both = a + b
    both.save(tmp_path / "both")
    kept = Activations.load(tmp_path / "both")
    assert same(kept, both)
    for left in (both, kept):
        for right in (a, b, b + a, c + a):
            for one, other in ((left, right), (right, left)):
                with pytest.raises(RecordingError, match="the same pairs"):
                    one + other
    sums = [(a + b) + c, a + (b + c), (c + a) + b, kept + c]
    assert len({found.pairs_fingerprints["law"] for found in sums}) == 1
    assert {found.of("law", "response_mean").count for found in sums} == {
        whole.of("law", "response_mean").count
    }


def test_domains_recorded_apart_are_joined(whole):
    apart = [recorded(PAIRS.of_domain(name)) for name in PAIRS.domains]
    both = sum(apart)
    assert both.pairs_fingerprints == whole.pairs_fingerprints
    for name in PAIRS.domains:
        found = mean_difference(both, domain=name, position="response_mean")
        expected = mean_difference(whole, domain=name, position="response_mean")
        assert found.provenance == expected.provenance
        assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_recordings_of_unlike_things_are_not_joined(whole):
    more = some_pairs(20)[9:]
    for other, what in (
        (recorded(more, layers=[1]), "layers"),
        (recorded(more, at="template"), "positions"),
        (replace(recorded(more), model=replace(whole.model, model_id="other")), "models"),
    ):
        with pytest.raises(RecordingError, match=f"different {what}"):
            whole + other
    nameless, narrow = replace(whole, model=None), replace(recorded(more), model=None)
    halved = {key: _narrow(moments) for key, moments in narrow.moments.items()}
    with pytest.raises(RecordingError, match="different widths"):
        nameless + replace(narrow, moments=halved)
    with pytest.raises(RecordingError, match="the same pairs"):
        whole + whole
    for number in (1, False):
        with pytest.raises(TypeError):
            number + whole
    with pytest.raises(TypeError):
        whole + 1


def _narrow(m):
    first, second = (half[:, ::2] for half in m.halves)
    cut = {name: getattr(m, name)[:, ::2] for name in ("mean_chosen", "mean_rejected", "second")}
    return replace(m, halves=(first, second), **cut)


def _written(folder: Path, data: bytes) -> Path:
    path = folder / "a.safetensors"
    path.write_bytes(data)
    return path


def _forged(data: bytes, change) -> bytes:
    """The file with its description changed and all checksums of it right."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    document = json.loads(header["__metadata__"][KEY])
    change(document)
    text = json.dumps(document)
    digest = hashlib.sha256(text.encode()).hexdigest()
    header["__metadata__"] = {KEY: text, f"{KEY}.sha256": digest}
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data[8 + length :]


def _set(*path, to):
    def change(document):
        for name in path[:-1]:
            document = document[name]
        document[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_set("format_version", to=3), "newer version"),
        (_set("extra", to=1), "unknown"),
        (_set("layers", to=[0, 2, 1, 3]), "ascending"),
        (_set("layers", to=[0, 1, 2, 4]), "layers below 4"),
        (_set("layers", to=[0, 1, 2]), "shape"),
        (_set("layers", to=[]), "at least one"),
        (_set("path", to=None), "a string"),
        (_set("model", "d_model", to=16), "d_model"),
        (_set("model", "extra", to=16), "unknown"),
        (_set("domains", 0, "recordings", to="x"), "an array"),
        (_set("domains", 0, "recordings", to=[3]), "a string"),
        (_set("domains", 0, "recordings", to=[]), "at least one"),
        (_set("domains", 0, "recordings", to=["b", "a"]), "ascending"),
        (_set("domains", 0, "recordings", to=["a", "a"]), "different fingerprints"),
        (lambda d: d["domains"].append(d["domains"][0]), "each domain once"),
        (_set("domains", 0, "domain", to="other"), "each domain at each position"),
        (_set("moments", 0, "position", to="other"), "each domain at each position"),
        (_set("moments", 1, to={}), "missing"),
        (_set("moments", to=[]), "each domain at each position"),
        (_set("moments", 0, "pairs", to=0), "at least 1"),
        (_set("moments", 0, "halves", to=[1, 1]), "add up"),
        (_set("moments", 0, "halves", to=[5]), "add up"),
        (_set("tensors", "norm", "shape", to=[1]), "shape"),
        (_set("tensors", "second", "shape", to=[]), "shape"),
        (_set("tensors", "norm", "sha256", to="0" * 64), "SHA-256"),
        (_set("tensors", "norm", "dtype", to="F32"), "dtype F64"),
        (lambda d: d["tensors"].pop("norm"), "missing"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(data, change, said, tmp_path):
    path = _written(tmp_path, _forged(data, change))
    with pytest.raises(VectorFileError, match=said) as error:
        Activations.load(path)
    assert str(path) in str(error.value)


def test_forging_alone_is_not_what_is_refused(data, whole, tmp_path):
    assert same(Activations.load(_written(tmp_path, _forged(data, lambda d: None))), whole)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 7))
def test_a_bit_that_changed_is_seen(data, whole, tmp_path_factory, at, bit):
    changed = bytearray(data)
    changed[at % len(data)] ^= 1 << bit
    try:
        found = Activations.load(_written(tmp_path_factory.mktemp("x"), bytes(changed)))
    except VectorFileError:
        return
    assert same(found, whole)  # a space of the header's padding


def test_values_that_cannot_be_moments_are_refused(whole, tmp_path):
    key = ("law", "response_mean")
    for name, value, said in (
        ("second", -1.0, "negative"),
        ("norm", -1.0, "negative"),
        ("mean_chosen", float("nan"), "NaN"),
    ):
        tensor = getattr(whole.moments[key], name).clone()
        tensor.view(-1)[0] = value
        wrong = replace(whole.moments[key], **{name: tensor})
        activations = replace(whole, moments={**whole.moments, key: wrong})
        with pytest.raises(VectorFileError, match=said):
            activations.save(tmp_path / "a")
        assert not (tmp_path / "a").exists()
    with pytest.raises(VectorFileError, match="no moments"):
        replace(whole, moments={}).save(tmp_path / "a")


def test_vectors_and_recordings_are_told_apart(data, tmp_path):
    path = _written(tmp_path, data)
    with pytest.raises(VectorFileError, match="recorded activations"):
        Vector.load(path)
    full().save(path)
    with pytest.raises(VectorFileError, match="a vector file") as error:
        Activations.load(path)
    assert "Activations.save" in str(error.value)


@pytest.fixture(scope="module")
def kept() -> Activations:
    return recorded(keep="pairs")


def test_kept_pairs_have_the_moments_as_their_means(kept, whole):
    assert same(kept, whole)
    for key, moments in kept.moments.items():
        pairs = kept.pairs(*key)
        assert len(pairs) == moments.count
        difference = pairs.difference
        torch.testing.assert_close(difference.mean(dim=0), moments.difference, rtol=0, atol=1e-6)
        second = (difference - difference.mean(dim=0)).square().sum(dim=0)
        torch.testing.assert_close(second, moments.second, rtol=1e-3, atol=1e-6)


def test_a_kept_pair_is_what_recording_it_alone_finds(kept):
    pair = PAIRS.items[4]
    place = sum(p.domain == pair.domain for p in PAIRS.items[:4])
    for key, moments in recorded([pair]).moments.items():
        found = kept.pairs(*key)
        for one, expected in (
            (found.chosen, moments.mean_chosen),
            (found.rejected, moments.mean_rejected),
        ):
            torch.testing.assert_close(one[place].double(), expected, rtol=1e-4, atol=1e-5)


def test_kept_pairs_come_back_bit_for_bit(kept, tmp_path):
    path = tmp_path / "a.safetensors"
    kept.save(path)
    for again in (Activations.load(path), pickle.loads(pickle.dumps(kept)), copy.copy(kept)):
        assert same(again, kept)
        for key in kept.moments:
            assert torch.equal(again.pairs(*key).chosen, kept.pairs(*key).chosen)
            assert torch.equal(again.pairs(*key).rejected, kept.pairs(*key).rejected)


def test_kept_pairs_add_up(kept):
    both = kept + recorded(some_pairs(12).items[9:], keep="pairs")
    for key in both.moments:
        assert len(both.pairs(*key)) == both.of(*key).count
        assert torch.equal(
            both.pairs(*key).chosen[: len(kept.pairs(*key))], kept.pairs(*key).chosen
        )


def test_what_keeps_pairs_and_what_does_not_are_not_added(kept, whole):
    with pytest.raises(RecordingError, match="content"):
        kept + recorded(some_pairs(12).items[9:])


def test_pairs_that_were_not_kept_are_refused(whole):
    with pytest.raises(RecordingError, match="keep='pairs'"):
        whole.pairs(whole.domains[0], "response_mean")
    with pytest.raises(ArgumentError, match="keep is not one of"):
        recorded(keep="everything")


GOLDEN = Path(__file__).parent / "golden"


def test_version_2_reads_and_is_written_the_same(tmp_path):
    path = GOLDEN / "recording-version-2.safetensors"
    golden = Activations.load(path)
    again = recorded(some_pairs(3), at="response_mean", layers=[1, 2], keep="pairs")
    assert (golden.layers, golden.domains) == (again.layers, again.domains)
    assert golden.responses == again.responses
    for key, moments in golden.moments.items():
        assert moments.shuffled.signs == again.of(*key).shuffled.signs
        for name in ("chosen", "rejected"):
            found, expected = (getattr(a.pairs(*key), name) for a in (golden, again))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    golden.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_version_1_still_reads():
    golden = Activations.load(GOLDEN / "recording-version-1.safetensors")
    again = recorded(some_pairs(3))
    assert (golden.layers, golden.domains, golden.kept) == (again.layers, again.domains, None)
    for key, moments in golden.moments.items():
        torch.testing.assert_close(
            moments.difference, again.of(*key).difference, rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_set("format_version", to=1), "unknown"),
        (_set("tensors", "pairs.0", "dtype", to="F64"), "dtype F32"),
        (_set("tensors", "pairs.0", "shape", to=[2, 1, 4, 32]), "shape"),
    ],
)
def test_a_description_of_kept_pairs_that_does_not_fit_is_refused(kept, tmp_path, change, said):
    path = tmp_path / "a.safetensors"
    kept.save(path)
    path.write_bytes(_forged(path.read_bytes(), change))
    with pytest.raises(VectorFileError, match=said):
        Activations.load(path)
