"""Recorded activations as a file: float64 moments with a description, verified when read.

The moments of all domains and positions are stacked, so that there are six tensors however many
there are: five `[entry layer d_model]`, and `norm` `[entry layer]`. Format version 2 adds counts
over the responses of each domain, and tensors of entry k: `shuffled.<k>`, the sums of its
label-shuffled controls in float64, `[16 layer d_model]` at up to four layers, and `pairs.<k>`,
single pairs in float32, `[2 pair layer d_model]`, chosen before rejected.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from steer.algebra import ModelInfo
from steer.algebra._file.describe import checksum, describe_model, describe_tensor
from steer.algebra._file.document import check_version, read_model
from steer.algebra._file.file import about, check_storable, damaged, digest_of, opened, write_file
from steer.algebra._file.layout import RECORDING_KEY
from steer.extract._kept import KeptPairs
from steer.extract._moments import Moments
from steer.extract._responses import Responses
from steer.extract._shuffled import CONTROLS, Shuffled, layers_read
from steer.extract._statistics import describe_responses, read_responses, read_signs
from steer.store import PathLike
from steer.store import _fields as fields
from steer.store import _strict_json as strict_json
from steer.store._container import header_bytes, read_container, read_shape, read_tensor

_DIGEST_KEY = f"{RECORDING_KEY}.sha256"
_VERSION = 2
_TOP = ("format_version", "model", "path", "layers", "domains", "moments", "tensors")
_NAMES = ("half.even", "half.odd", "mean_chosen", "mean_rejected", "norm", "second")
_PAIRS, _SHUFFLED = "pairs", "shuffled"  # tensors of one entry
_POSITIVE = ("norm", "second")  # whose values are lengths or squares
_Key = tuple[str | None, str]


@dataclass(frozen=True, slots=True)
class Recording:
    """What is kept of a recording; the fields are those of `Activations`."""

    moments: Mapping[_Key, Moments]
    layers: tuple[int, ...]
    recordings: Mapping[str | None, tuple[str, ...]]
    model: ModelInfo | None
    path: str
    kept: Mapping[_Key, KeptPairs] | None = None
    responses: Mapping[str | None, Responses] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of `moments`: which it is, its numbers of pairs, the signs of its random labels."""

    key: _Key
    count: int
    halves: tuple[int, int]
    signs: tuple[int, ...] | None


def save_recording(recording: Recording, path: PathLike) -> None:
    """Write recorded activations to a `.safetensors` file, atomically."""
    with about(path):
        moments = list(recording.moments.values())
        tensors = _stacked(moments) | _shuffled(moments) | _kept(recording)
        for name, tensor in tensors.items():
            _check_values(name, tensor)
        text = strict_json.dumps(_described(recording, tensors))
        _read(strict_json.loads(text))
        header = header_bytes({RECORDING_KEY: text, _DIGEST_KEY: digest_of(text)}, tensors)
        write_file(path, header, tensors)


def load_recording(path: PathLike) -> Recording:
    """Read what `save_recording` wrote; all is validated, and nothing is unpickled."""
    with about(path), opened(path) as (file, size):
        container = read_container(file, size, key=RECORDING_KEY)
        text = container.metadata[RECORDING_KEY]
        value = fields.mapping("the description", strict_json.loads(text))
        check_version(value, _VERSION)
        if container.metadata.get(_DIGEST_KEY) != digest_of(text):
            raise damaged(f"a description with SHA-256 {digest_of(text)}", f"{_DIGEST_KEY} beside")
        known, entries, checksums = _read(value)
        held = {name: (entry.dtype, entry.shape) for name, entry in container.entries.items()}
        tensors: dict[str, Tensor] = {}
        for name, (shape, wanted) in checksums.items():
            dtype = _dtype(name)
            if held.pop(name, None) != (dtype, shape):
                raise damaged(
                    f"a tensor {name!r} that differs from its description", f"{dtype}{shape}"
                )
            tensors[name], digest = read_tensor(file, container.entries[name])
            if digest != wanted:
                raise damaged(f"bytes of {name!r} with SHA-256 {digest}", wanted)
            _check_values(name, tensors[name])
        if held:
            raise damaged(f"tensors that are not described: {sorted(held)[:4]}", "none")
    moments = {entry.key: _moments(entry, k, tensors) for k, entry in enumerate(entries)}
    kept = None
    if _of(_PAIRS, 0) in tensors:
        kept = {e.key: KeptPairs(*tensors[_of(_PAIRS, k)]) for k, e in enumerate(entries)}
    return replace(known, moments=moments, kept=kept)


def _of(kind: str, entry: int) -> str:
    return f"{kind}.{entry}"


def _dtype(name: str) -> str:
    return "F32" if name.startswith(_PAIRS) else "F64"


def _shuffled(moments: list[Moments]) -> dict[str, Tensor]:
    """Return the label-shuffled sums of the entries that have them."""
    found = {_of(_SHUFFLED, k): m.shuffled for k, m in enumerate(moments)}
    return {name: s.sums.double().contiguous() for name, s in found.items() if s is not None}


def _kept(recording: Recording) -> dict[str, Tensor]:
    """Return the tensors of the pairs kept, in the order of the entries of `moments`."""
    if recording.kept is None:
        return {}
    found = [recording.kept[key] for key in recording.moments]
    return {
        _of(_PAIRS, k): torch.stack([p.chosen, p.rejected]).float() for k, p in enumerate(found)
    }


def _check_values(name: str, tensor: Tensor) -> None:
    check_storable(name, tensor)
    if name in _POSITIVE and bool((tensor < 0).any()):
        raise fields.wrong(f"tensors.{name}", "a negative value", "values of at least 0")


def _stacked(moments: list[Moments]) -> dict[str, Tensor]:
    if not moments:
        raise fields.wrong("moments", "no moments", "at least one domain at one position")
    columns = [
        (m.halves[0], m.halves[1], m.mean_chosen, m.mean_rejected, m.norm, m.second)
        for m in moments
    ]
    named = zip(_NAMES, zip(*columns, strict=True), strict=True)
    return {name: torch.stack(column).double() for name, column in named}


def _moments(entry: _Entry, k: int, tensors: Mapping[str, Tensor]) -> Moments:
    even, odd, chosen, rejected, norm, second = (tensors[name][k] for name in _NAMES)
    sums = tensors.get(_of(_SHUFFLED, k))
    shuffled = None if sums is None or entry.signs is None else Shuffled(entry.signs, sums)
    halves = even, odd
    return Moments(entry.count, chosen, rejected, second, halves, entry.halves, norm, shuffled)


def _described(recording: Recording, tensors: Mapping[str, Tensor]) -> dict[str, object]:
    return {
        "format_version": _VERSION,
        "model": describe_model(recording.model),
        "path": recording.path,
        "layers": list(recording.layers),
        "domains": [
            {
                "domain": domain,
                "recordings": [*marks],
                "responses": describe_responses(recording.responses.get(domain)),
            }
            for domain, marks in recording.recordings.items()
        ],
        "moments": [
            {
                "domain": domain,
                "position": position,
                "pairs": m.count,
                "halves": [*m.half_counts],
                "signs": None if m.shuffled is None else [*m.shuffled.signs],
            }
            for (domain, position), m in recording.moments.items()
        ],
        "tensors": {name: describe_tensor(t, checksum(t)) for name, t in tensors.items()},
    }


def _read(
    value: object,
) -> tuple[Recording, list[_Entry], dict[str, tuple[tuple[int, ...], str]]]:
    """Check a description; return the recording without its moments, entries and checksums."""
    top = fields.members("the description", value, _TOP)
    model = None if top["model"] is None else read_model(top["model"])
    layers = tuple(fields.integer("a layer", n) for n in fields.array("layers", top["layers"]))
    if not layers or list(layers) != sorted(set(layers)):
        raise fields.wrong("layers", list(layers), "different layers, ascending, at least one")
    if model is not None and layers[-1] >= model.n_layers:
        raise fields.wrong("layers", f"layer {layers[-1]}", f"layers below {model.n_layers}")
    version = fields.integer("format_version", top["format_version"])
    recordings, responses = _domains(top["domains"], version)
    entries = [_entry(item, version) for item in fields.array("moments", top["moments"])]
    keys = [entry.key for entry in entries]
    expected = {(domain, position) for domain in recordings for _, position in keys}
    if not keys or len(keys) != len(set(keys)) or set(keys) != expected:
        raise fields.wrong("moments", f"{len(keys)} entries", "each domain at each position once")
    checksums = _checksums(top["tensors"], entries, len(layers), version)
    width = checksums["second"][0][-1]
    if model is not None and width != model.d_model:
        raise fields.wrong("tensors", f"width {width}", f"the model's d_model, {model.d_model}")
    path = fields.text("path", top["path"])
    return Recording({}, layers, recordings, model, path, None, responses), entries, checksums


def _domains(
    value: object, version: int
) -> tuple[dict[str | None, tuple[str, ...]], dict[str | None, Responses]]:
    """Return the fingerprints of the recordings in each domain, and the counts of its responses."""
    found: dict[str | None, tuple[str, ...]] = {}
    responses: dict[str | None, Responses] = {}
    names = ("domain", "recordings") + (("responses",) if version > 1 else ())
    for item in fields.array("domains", value):
        part = fields.members("an entry of domains", item, names)
        domain = fields.optional_text("a domain", part["domain"])
        if domain in found:
            raise fields.wrong("domains", f"{domain!r} twice"[:80], "each domain once")
        listed = fields.array("recordings", part["recordings"])
        marks = [fields.text("a fingerprint of recordings", mark) for mark in listed]
        if not marks or marks != sorted(set(marks)):
            expected = "different fingerprints, ascending, at least one"
            raise fields.wrong("recordings", f"{len(marks)} fingerprints", expected)
        found[domain] = tuple(marks)
        if (counted := part.get("responses")) is not None:
            responses[domain] = read_responses(counted)
    return found, responses


def _entry(value: object, version: int) -> _Entry:
    names = ("domain", "position", "pairs", "halves") + (("signs",) if version > 1 else ())
    entry = fields.members("an entry of moments", value, names)
    key = (
        fields.optional_text("a domain", entry["domain"]),
        fields.text("a position", entry["position"]),
    )
    count = fields.integer("pairs", entry["pairs"], low=1)
    halves = [fields.integer("halves", n) for n in fields.array("halves", entry["halves"])]
    if len(halves) != 2 or sum(halves) != count:
        raise fields.wrong("halves", halves, f"two numbers that add up to {count} pairs")
    return _Entry(key, count, (halves[0], halves[1]), read_signs(entry.get("signs"), count))


def _checksums(
    value: object, entries: list[_Entry], layers: int, version: int
) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and checksum of each tensor."""
    mapping = fields.mapping("tensors", value)
    some: dict[str, tuple[int, ...]] = {
        _of(_SHUFFLED, k): (CONTROLS, len(layers_read(layers)))
        for k, entry in enumerate(entries)
        if entry.signs is not None
    }
    if version > 1 and _of(_PAIRS, 0) in mapping:
        some |= {_of(_PAIRS, k): (2, entry.count, layers) for k, entry in enumerate(entries)}
    names = (*_NAMES, *some)
    found = fields.members("tensors", mapping, names)
    checksums = {}
    for name in names:
        item = fields.members(f"tensors.{name}", found[name], ("dtype", "shape", "sha256"))
        shape = read_shape(f"tensors.{name}", item["shape"])
        if item["dtype"] != _dtype(name):
            found_dtype = f"dtype {item['dtype']!r}"[:80]
            raise fields.wrong(f"tensors.{name}", found_dtype, f"dtype {_dtype(name)}")
        checksums[name] = shape, fields.text(f"the checksum of {name}", item["sha256"])
    width = checksums["second"][0][-1:]
    for name, (shape, _) in checksums.items():
        wanted = (*some.get(name, (len(entries), layers)), *(() if name == "norm" else width))
        if shape != wanted or len(width) != 1:
            raise fields.wrong(f"tensors.{name}", f"shape {shape}", f"shape {wanted}")
    return checksums
