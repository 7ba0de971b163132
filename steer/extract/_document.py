"""The description in the header of a file of recorded activations: its schema and its checks."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

from pydantic import model_validator

from steer.algebra._file.document import ModelRecord
from steer.extract._activations import Activations
from steer.extract._file import MOMENTS, VERSION
from steer.extract._responses import MOST_DIFFERENT, Responses
from steer.extract._shuffled import CONTROLS, layers_read
from steer.store._refusals import wrong
from steer.store._schema import Array, Count, Description, Positive, Record, Text, validated


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

    @model_validator(mode="after")
    def _check_sums(self) -> Self:
        longer, shorter = self.much_longer, self.much_shorter
        if longer + shorter > self.pairs:
            names = "much_longer and much_shorter"
            raise wrong(names, f"{longer} and {shorter}", f"at most {self.pairs} in all")
        if self.counts is not None:
            sums = [sum(c.chosen for c in self.counts), sum(c.rejected for c in self.counts)]
            texts = [entry.text for entry in self.counts]
            ordered = texts == sorted(set(texts)) and len(texts) <= MOST_DIFFERENT
            if sums != [self.pairs, self.pairs] or not ordered:
                each = f"{self.pairs} times chosen and rejected in all"
                expected = f"up to {MOST_DIFFERENT} sorted texts, {each}"
                raise wrong("counts", f"{len(texts)} texts, {sums} in all", expected)
        return self

    @property
    def responses(self) -> Responses:
        """The counts."""
        counts = {entry.text: (entry.chosen, entry.rejected) for entry in self.counts or ()}
        return Responses(self.pairs, self.much_longer, self.much_shorter, counts or None)


class DomainRecord(Record):
    """A domain, the fingerprints of its recordings, and the counts over its responses."""

    domain: Text | None
    recordings: Array[Text]
    responses: ResponsesRecord | None

    @model_validator(mode="after")
    def _check_recordings(self) -> Self:
        marks = self.recordings
        if not marks or marks != sorted(set(marks)):
            expected = "different fingerprints, ascending, at least one"
            raise wrong("recordings", f"{len(marks)} fingerprints", expected)
        return self


class MomentsRecord(Record):
    """The moments of a domain at a position: numbers of pairs, and sums of random labels."""

    domain: Text | None
    position: Text
    pairs: Positive
    halves: Array[Count]
    signs: Array[int] | None

    @model_validator(mode="after")
    def _check_sums(self) -> Self:
        count, halves, signs = self.pairs, self.halves, self.signs
        if len(halves) != 2 or sum(halves) != count:
            raise wrong("halves", halves, f"two numbers that add up to {count} pairs")
        sums = signs is None or all(abs(n) <= count and not (n - count) % 2 for n in signs)
        if signs is not None and not (len(signs) == CONTROLS and sums):
            expected = f"{CONTROLS} sums of {count} labels, each 1 or -1"
            raise wrong("signs", f"{len(signs)} numbers, {signs[:4]} first", expected)
        return self


class RecordingRecord(Description):
    """The whole description."""

    model: ModelRecord | None
    path: Text
    layers: Array[Count]
    domains: Array[DomainRecord]
    moments: Array[MomentsRecord]

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, value: Any) -> Any:
        """Return a description of format version 1 with the members that version 2 added."""
        if not isinstance(value, dict) or value.get("format_version") != 1:
            return value
        added = {}
        for name, member in (("domains", "responses"), ("moments", "signs")):
            items = value.get(name)
            if isinstance(items, list):
                added[name] = [{**i, member: None} if isinstance(i, dict) else i for i in items]
        return value | added

    @property
    def keeps_pairs(self) -> bool:
        """Whether there are tensors of single pairs."""
        return self.format_version > 1 and "pairs.0" in self.tensors

    @model_validator(mode="after")
    def _check_entries(self) -> Self:
        """Refuse layers that are no ascending ones of the model, and entries named twice."""
        layers, model = self.layers, self.model
        if not layers or layers != sorted(set(layers)):
            raise wrong("layers", layers, "different layers, ascending, at least one")
        if model is not None and layers[-1] >= model.n_layers:
            raise wrong("layers", f"layer {layers[-1]}", f"layers below {model.n_layers}")
        domains = [part.domain for part in self.domains]
        if len(domains) != len(set(domains)):
            raise wrong("domains", f"{domains}"[:80], "each domain once")
        keys = [(entry.domain, entry.position) for entry in self.moments]
        expected = {(domain, position) for domain in domains for _, position in keys}
        if not keys or len(keys) != len(set(keys)) or set(keys) != expected:
            raise wrong("moments", f"{len(keys)} entries", "each domain at each position once")
        return self

    @model_validator(mode="after")
    def _check_tensors(self) -> Self:
        """Refuse tensors whose names, dtypes and shapes are not those of the moments."""
        entries, layers = self.moments, len(self.layers)
        second = self.tensors.get("second")
        width = second.shape[-1] if second and second.shape else 0
        stack = (len(entries), layers)
        wanted = {name: ("F64", [*stack, width]) for name in MOMENTS}
        wanted["norm"] = ("F64", [*stack])
        for k, entry in enumerate(entries):
            if entry.signs is not None:
                few = len(layers_read(layers))
                wanted[f"shuffled.{k}"] = ("F64", [CONTROLS, few, width])
            if self.keeps_pairs:
                wanted[f"pairs.{k}"] = ("F32", [2, entry.pairs, layers, width])
        found = {name: (info.dtype, info.shape) for name, info in self.tensors.items()}
        missing, unknown = sorted(wanted.keys() - found), sorted(found.keys() - wanted)
        if missing or unknown:
            said = f"missing {missing}, unknown {unknown[:5]}"
            raise wrong("tensors", said, f"{list(wanted)}"[:200])
        for name, (dtype, shape) in wanted.items():
            if found[name] != (dtype, shape):
                said = "dtype {0[0]!r:.80}, shape {0[1]}".format(found[name])
                raise wrong(f"tensors.{name}", said, f"dtype {dtype}, shape {shape}")
        if self.model is not None and width != self.model.d_model:
            expected = f"the model's d_model, {self.model.d_model}"
            raise wrong("tensors", f"width {width}", expected)
        return self


def described(activations: Activations, tensors: Mapping[str, object]) -> dict[str, object]:
    """Return the description of a recording whose tensors are described already."""
    raw: dict[str, object] = {
        "format_version": VERSION,
        "model": activations.model and asdict(activations.model),
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
        "tensors": dict(tensors),
    }
    validated(RecordingRecord, "", raw)
    return raw


def _responses(found: Responses | None) -> dict[str, object] | None:
    if found is None:
        return None
    counts = found.counts
    listed = counts and [{"text": t, "chosen": a, "rejected": b} for t, (a, b) in counts.items()]
    return {name: getattr(found, name) for name in ResponsesRecord.model_fields} | {
        "counts": listed
    }
