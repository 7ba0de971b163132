"""The description in the header of a vector file: its schema and its checks."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from steer.algebra._file.layout import (
    CENTROIDS,
    FORMAT_VERSION,
    KINDS,
    PARTS,
    kind_name,
    stored_norm,
    tensor_name,
)
from steer.algebra._gate import DomainGate
from steer.algebra._provenance import LayerStats, ModelInfo, Provenance, Tuning, thawed
from steer.algebra._scope import parse_scope
from steer.algebra._site import Residual, Site, parse_site
from steer.algebra._vector import Vector
from steer.store import _strict_json as strict_json
from steer.store._described import check_version
from steer.store._refusals import wrong
from steer.store._schema import (
    Array,
    Count,
    LayerNumber,
    Length,
    Number,
    Positive,
    Record,
    Share,
    TensorRecord,
    Text,
    by_name,
    validated,
)

_ROUNDING = 1e-6  # by which a stored norm may differ from that of the tensor
_COSINE = 1.0 + 1e-6  # rounding may take a cosine so far out of [-1, 1]


class ModelRecord(Record):
    """What identifies a model: the fields of `ModelInfo`."""

    model_id: Text
    revision: Text | None
    n_layers: Positive
    d_model: Positive
    config: str
    tokenizer: str
    template: str


class ProvenanceRecord(Record):
    """How the vector was made: the fields of `Provenance`."""

    method: Text
    arguments: dict[str, Any]
    domain: Text | None
    pairs: Count
    pairs_fingerprint: Text | None
    model: ModelRecord | None
    license: Text | None
    version: Text | None


class SiteRecord(Record):
    """A site by its name, and the kind of term at it."""

    site: Text
    term: Literal["direction", "low_rank", "dense"]


class LayerRecord(Record):
    """The norm of a direction, and the fields of `LayerStats`."""

    layer: LayerNumber
    norm: Length
    residual_norm: Length | None
    standard_error: Length | None
    split_half_cosine: Annotated[Number, Field(ge=-_COSINE, le=_COSINE)] | None


class TuningRecord(Record):
    """The setting that a selection chose: the fields of `Tuning`."""

    layer: LayerNumber | None
    coefficient: Number
    operator: Text
    scope: Text
    score: Share | None
    kl: Number | None


class GateRecord(Record):
    """A gate without its centroids: the fields of `DomainGate`."""

    domains: Array[Text]
    layer: LayerNumber
    margin: Length
    accuracy: Share | None


class VectorRecord(Record):
    """The whole description; `tensors` is validated entry by entry."""

    format_version: Positive
    provenance: ProvenanceRecord
    sites: Array[SiteRecord]
    layers: Array[LayerRecord]
    tuning: TuningRecord | None
    gate: GateRecord | None
    tensors: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Document:
    """A checked description: the record itself, with its sites and tensors by name."""

    record: VectorRecord
    kinds: Mapping[Site, str]
    tensors: Mapping[str, TensorRecord]


def described(vector: Vector, tensors: Mapping[str, object]) -> dict[str, object]:
    """Return the canonical description of a vector whose tensors are described already."""
    made, tuning, gate = vector.provenance, vector.tuning, vector.gate
    arguments = thawed(made.arguments)
    strict_json.dumps(arguments)  # the only part that may hold anything
    provenance = {name: getattr(made, name) for name in ProvenanceRecord.model_fields}
    raw = {
        "format_version": FORMAT_VERSION,
        "provenance": provenance | {"arguments": arguments, "model": model_members(made.model)},
        "sites": [{"site": str(s), "term": kind_name(term)} for s, term in vector.terms.items()],
        "layers": [_layer(vector, layer) for layer in sorted({*vector.layers, *vector.stats})],
        "tuning": tuning and asdict(tuning) | {"scope": str(tuning.scope)},
        "gate": gate
        and {
            "domains": list(gate.domains),
            "layer": gate.layer,
            "margin": gate.margin,
            "accuracy": gate.accuracy,
        },
        "tensors": dict(tensors),
    }
    return read_document(raw).record.model_dump()


def read_document(value: object) -> Document:
    """Return the checked content of a description."""
    record = validated(VectorRecord, "", value)
    check_version({"format_version": record.format_version}, FORMAT_VERSION)
    document = Document(record, _kinds(record), by_name(TensorRecord, "tensors", record.tensors))
    if record.tuning:
        parse_scope(record.tuning.scope)
    _check_layers(document)
    _check_names(document)
    _check_fit(document)
    return document


def model_members(model: ModelInfo | None) -> dict[str, object] | None:
    """Return the members of a model's record."""
    return None if model is None else asdict(model)


def model_of(record: ModelRecord | None) -> ModelInfo | None:
    """Return what identifies a model, from its record."""
    return None if record is None else ModelInfo(**dict(record))


def build_vector(document: Document, tensors: Mapping[str, Tensor]) -> Vector:
    """Return the vector of a checked description and its tensors, which are finite."""
    record = document.record
    terms = {
        site: KINDS[kind](*(tensors[tensor_name(site, part)] for part in PARTS[kind]))
        for site, kind in document.kinds.items()
    }
    made = Provenance(**{**dict(record.provenance), "model": model_of(record.provenance.model)})
    stats = {}
    for entry in record.layers:
        measured = LayerStats(entry.residual_norm, entry.standard_error, entry.split_half_cosine)
        if measured != LayerStats():
            stats[entry.layer] = measured
    tuning, gate = None, None
    if found := record.tuning:
        tuning = Tuning(**{**dict(found), "scope": parse_scope(found.scope)})
    if info := record.gate:
        domains = tuple(info.domains)
        gate = DomainGate(domains, tensors[CENTROIDS], info.layer, info.margin, info.accuracy)
    vector = Vector(terms, made, stats, tuning, gate)
    for entry in record.layers:
        norm = stored_norm(vector.direction(entry.layer))
        if not math.isclose(norm, entry.norm, rel_tol=_ROUNDING):
            raise wrong(
                f"the norm of layer {entry.layer}", entry.norm, f"that of its tensor, {norm}"
            )
    return vector


def _layer(vector: Vector, layer: int) -> dict[str, object]:
    stats = vector.stats.get(layer, LayerStats())
    return {"layer": layer, "norm": stored_norm(vector.direction(layer)), **asdict(stats)}


def _kinds(record: VectorRecord) -> dict[Site, str]:
    kinds: dict[Site, str] = {}
    for entry in record.sites:
        site = parse_site(entry.site)
        if site in kinds:
            raise wrong("sites", f"{site} twice", "each site once")
        kinds[site] = entry.term
    return kinds


def _check_layers(document: Document) -> None:
    """Raise unless the entries of `layers` are the layers of the residual sites, each once."""
    expected = [site.layer for site in document.kinds if isinstance(site, Residual)]
    found = [entry.layer for entry in document.record.layers]
    if sorted(found) != sorted(expected):
        raise wrong("layers", f"layers {sorted(found)}", f"the layers of sites, {expected}")


def _check_names(document: Document) -> None:
    """Raise unless the tensors are those that the sites and the gate ask for."""
    expected = {
        tensor_name(site, part) for site, kind in document.kinds.items() for part in PARTS[kind]
    }
    if document.record.gate:
        expected.add(CENTROIDS)
    if set(document.tensors) != expected:
        missing = sorted(expected - set(document.tensors))[:5]
        extra = sorted(set(document.tensors) - expected)[:5]
        raise wrong("tensors", f"missing {missing}, extra {extra}", "one for each part")


def _check_fit(document: Document) -> None:
    """Raise unless widths agree with each other, and layers with the model's number of layers."""
    record = document.record
    model, gate, tuning = record.provenance.model, record.gate, record.tuning
    widths = {
        f"tensors.{name}": info.shape[-1]
        for name, info in document.tensors.items()
        if info.shape and (name == CENTROIDS or name.endswith(".v"))
    }
    if model:
        widths["model.d_model"] = model.d_model
    if len(set(widths.values())) > 1:
        raise wrong("d_model", widths, "one width")
    steered = [entry.layer for entry in record.layers]
    tuned = tuning.layer if tuning else None
    layers = [*steered, *([gate.layer] if gate else []), *([] if tuned is None else [tuned])]
    if model and max(layers, default=-1) >= model.n_layers:
        raise wrong("a layer", f"layer {max(layers)}", f"layers below {model.n_layers}")
    if tuned is not None and tuned not in steered:
        raise wrong("tuning.layer", tuned, f"null, or one of {sorted(steered)}")
