"""The description in the header of a file of recorded activations: its schema and its checks."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from steer.algebra._file.document import ModelRecord, model_members, model_of
from steer.extract._activations import Activations
from steer.extract._file import MOMENTS, PAIRS, SHUFFLED, VERSION, dtype_of, name_of
from steer.extract._responses import MOST_DIFFERENT, Responses
from steer.extract._shuffled import CONTROLS, layers_read
from steer.store._described import describe_tensor
from steer.store._refusals import wrong
from steer.store._schema import (
    Array,
    Count,
    Positive,
    Record,
    TensorRecord,
    Text,
    by_name,
    validated,
)


class CountRecord(Record):
    """How often one text of a response is chosen and rejected."""

    text: Text
    chosen: Count
    rejected: Count


class ResponsesRecord(Record):
    """Counts over the responses of a domain: the fields of `Responses`."""

    pairs: Positive
    much_longer: Count
    much_shorter: Count
    counts: Array[CountRecord] | None


class DomainRecord(Record):
    """A domain, the fingerprints of its recordings, and the counts over its responses."""

    domain: Text | None
    recordings: Array[Text]
    responses: ResponsesRecord | None


class MomentsRecord(Record):
    """The moments of a domain at a position: numbers of pairs, and sums of random labels."""

    domain: Text | None
    position: Text
    pairs: Positive
    halves: Array[Count]
    signs: Array[int] | None


class RecordingRecord(Record):
    """The whole description; `tensors` is validated entry by entry."""

    format_version: Positive
    model: ModelRecord | None
    path: Text
    layers: Array[Count]
    domains: Array[DomainRecord]
    moments: Array[MomentsRecord]
    tensors: dict[str, Any]


def described(activations: Activations, tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """Return the description of a recording, after checking it."""
    raw: dict[str, object] = {
        "format_version": VERSION,
        "model": model_members(activations.model),
        "path": activations.path,
        "layers": list(activations.layers),
        "domains": [
            {
                "domain": domain,
                "recordings": [*marks],
                "responses": _responses(activations.responses.get(domain)),
            }
            for domain, marks in activations.recordings.items()
        ],
        "moments": [
            {
                "domain": domain,
                "position": position,
                "pairs": m.count,
                "halves": [*m.half_counts],
                "signs": None if m.shuffled is None else [*m.shuffled.signs],
            }
            for (domain, position), m in activations.moments.items()
        ],
        "tensors": {name: describe_tensor(tensor) for name, tensor in tensors.items()},
    }
    read_document(raw)
    return raw


def read_document(
    value: dict[str, Any],
) -> tuple[dict[str, Any], list[MomentsRecord], dict[str, TensorRecord]]:
    """Return the fields of `Activations` without tensors, the moments, and the tensors' records."""
    record = validated(RecordingRecord, "", _upgraded(value))
    layers, model = tuple(record.layers), record.model
    if not layers or list(layers) != sorted(set(layers)):
        raise wrong("layers", list(layers), "different layers, ascending, at least one")
    if model is not None and layers[-1] >= model.n_layers:
        raise wrong("layers", f"layer {layers[-1]}", f"layers below {model.n_layers}")
    _check_domains(record.domains)
    _check_moments(record)
    infos = by_name(TensorRecord, "tensors", record.tensors)
    width = _check_tensors(infos, record)
    if model is not None and width != model.d_model:
        raise wrong("tensors", f"width {width}", f"the model's d_model, {model.d_model}")
    fields = {
        "layers": layers,
        "recordings": {part.domain: tuple(part.recordings) for part in record.domains},
        "model": model_of(model),
        "path": record.path,
        "responses": {p.domain: _counted(p.responses) for p in record.domains if p.responses},
    }
    return fields, record.moments, infos


def _upgraded(value: dict[str, Any]) -> dict[str, Any]:
    """Return a description of format version 1 with the members that version 2 added."""
    if value.get("format_version") != 1:
        return value
    added = {}
    for name, member in (("domains", "responses"), ("moments", "signs")):
        items = value.get(name)
        if isinstance(items, list):
            added[name] = [{**i, member: None} if isinstance(i, dict) else i for i in items]
    return value | added


def _responses(found: Responses | None) -> dict[str, object] | None:
    if found is None:
        return None
    counts = found.counts
    listed = counts and [{"text": t, "chosen": a, "rejected": b} for t, (a, b) in counts.items()]
    return {
        "pairs": found.pairs,
        "much_longer": found.much_longer,
        "much_shorter": found.much_shorter,
        "counts": listed,
    }


def _counted(record: ResponsesRecord) -> Responses:
    """Return counts over responses, whose numbers must add up."""
    pairs, longer, shorter = record.pairs, record.much_longer, record.much_shorter
    if longer + shorter > pairs:
        names = "much_longer and much_shorter"
        raise wrong(names, f"{longer} and {shorter}", f"at most {pairs} in all")
    if record.counts is None:
        return Responses(pairs, longer, shorter, None)
    counts = {entry.text: (entry.chosen, entry.rejected) for entry in record.counts}
    sums = [sum(sides) for sides in zip(*counts.values(), strict=True)]
    texts = [entry.text for entry in record.counts]
    if sums != [pairs, pairs] or texts != sorted(set(texts)) or len(texts) > MOST_DIFFERENT:
        expected = f"up to {MOST_DIFFERENT} sorted texts, {pairs} times chosen and rejected in all"
        raise wrong("counts", f"{len(texts)} texts, {sums} in all", expected)
    return Responses(pairs, longer, shorter, counts)


def _check_domains(domains: list[DomainRecord]) -> None:
    known = set()
    for part in domains:
        if part.domain in known:
            raise wrong("domains", f"{part.domain!r} twice"[:80], "each domain once")
        known.add(part.domain)
        marks = part.recordings
        if not marks or marks != sorted(set(marks)):
            expected = "different fingerprints, ascending, at least one"
            raise wrong("recordings", f"{len(marks)} fingerprints", expected)


def _check_moments(record: RecordingRecord) -> None:
    for entry in record.moments:
        count, halves, signs = entry.pairs, entry.halves, entry.signs
        if len(halves) != 2 or sum(halves) != count:
            raise wrong("halves", halves, f"two numbers that add up to {count} pairs")
        sums = signs is None or all(abs(n) <= count and not (n - count) % 2 for n in signs)
        if signs is not None and not (len(signs) == CONTROLS and sums):
            expected = f"{CONTROLS} sums of {count} labels, each 1 or -1"
            raise wrong("signs", f"{len(signs)} numbers, {signs[:4]} first", expected)
    keys = [(entry.domain, entry.position) for entry in record.moments]
    expected_keys = {(part.domain, position) for part in record.domains for _, position in keys}
    if not keys or len(keys) != len(set(keys)) or set(keys) != expected_keys:
        raise wrong("moments", f"{len(keys)} entries", "each domain at each position once")


def _check_tensors(infos: Mapping[str, TensorRecord], record: RecordingRecord) -> int:
    """Raise unless names, dtypes and shapes are those of the moments; return the width."""
    entries, layers = record.moments, len(record.layers)
    shapes: dict[str, tuple[int, ...]] = {name: (len(entries), layers) for name in MOMENTS}
    kept = record.format_version > 1 and name_of(PAIRS, 0) in infos
    for k, entry in enumerate(entries):
        if entry.signs is not None:
            shapes[name_of(SHUFFLED, k)] = (CONTROLS, len(layers_read(layers)))
        if kept:
            shapes[name_of(PAIRS, k)] = (2, entry.pairs, layers)
    missing, unknown = (sorted(a.keys() - b.keys()) for a, b in ((shapes, infos), (infos, shapes)))
    if missing or unknown:
        raise wrong("tensors", f"missing {missing}, unknown {unknown[:5]}", f"{list(shapes)}"[:200])
    width = infos["second"].shape[-1:]
    for name, info in infos.items():
        if info.dtype != dtype_of(name):
            found = f"dtype {info.dtype!r}"[:80]
            raise wrong(f"tensors.{name}", found, f"dtype {dtype_of(name)}")
        wanted = (*shapes[name], *(() if name == "norm" else width))
        if tuple(info.shape) != wanted or len(width) != 1:
            raise wrong(f"tensors.{name}", f"shape {tuple(info.shape)}", f"shape {wanted}")
    return width[0]
