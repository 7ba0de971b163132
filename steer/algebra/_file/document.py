"""The description in the header of a vector file: its schema and its checks."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from torch import Tensor

from steer.algebra._file.file import CENTROIDS, FORMAT_VERSION, KINDS, tensor_names
from steer.algebra._gate import DomainGate
from steer.algebra._provenance import LayerStats, ModelInfo, Provenance, Tuning, thawed
from steer.algebra._scope import parse_scope
from steer.algebra._site import Residual, Site, parse_site
from steer.algebra._vector import Vector
from steer.store import _strict_json as strict_json
from steer.store._refusals import wrong
from steer.store._schema import (
    Array,
    Count,
    Description,
    LayerNumber,
    Length,
    Number,
    Positive,
    Record,
    Share,
    Text,
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

    @property
    def info(self) -> ModelInfo:
        """The model."""
        return ModelInfo(**dict(self))


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
    scope: Annotated[Text, AfterValidator(lambda scope: str(parse_scope(scope)))]
    score: Share | None
    kl: Number | None
    unsteered: Share | None = None

    @model_serializer(mode="wrap")
    def _written(self, members: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not known, as files do that were written before it was kept."""
        found: dict[str, Any] = members(self)
        if self.unsteered is None:
            del found["unsteered"]
        return found


class GateRecord(Record):
    """A gate without its centroids: the fields of `DomainGate`."""

    domains: Array[Text]
    layer: LayerNumber
    margin: Length
    accuracy: Share | None


class VectorRecord(Description):
    """The whole description."""

    provenance: ProvenanceRecord
    sites: Array[SiteRecord]
    layers: Array[LayerRecord]
    tuning: TuningRecord | None
    gate: GateRecord | None

    @cached_property
    def kinds(self) -> Mapping[Site, str]:
        """The kind of term at each site."""
        kinds: dict[Site, str] = {}
        for entry in self.sites:
            site = parse_site(entry.site)
            if site in kinds:
                raise wrong("sites", f"{site} twice", "each site once")
            kinds[site] = entry.term
        return kinds

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        """Refuse layers other than those of the residual sites, or beyond those of the model."""
        expected = [site.layer for site in self.kinds if isinstance(site, Residual)]
        found = [entry.layer for entry in self.layers]
        if sorted(found) != sorted(expected):
            raise wrong("layers", f"layers {sorted(found)}", f"the layers of sites, {expected}")
        tuned = [] if self.tuning is None or self.tuning.layer is None else [self.tuning.layer]
        named = [*found, *tuned, *([self.gate.layer] if self.gate else [])]
        model = self.provenance.model
        if model and max(named, default=-1) >= model.n_layers:
            raise wrong("a layer", f"layer {max(named)}", f"layers below {model.n_layers}")
        if not set(tuned) <= set(found):
            raise wrong("tuning.layer", tuned[0], f"null, or one of {sorted(found)}")
        return self

    @model_validator(mode="after")
    def _check_tensors(self) -> Self:
        """Refuse tensors other than those of the sites and the gate, or of unequal widths."""
        expected = {name for site, kind in self.kinds.items() for name in tensor_names(site, kind)}
        expected |= {CENTROIDS} if self.gate else set()
        if self.tensors.keys() != expected:
            missing = sorted(expected - self.tensors.keys())[:5]
            extra = sorted(self.tensors.keys() - expected)[:5]
            raise wrong("tensors", f"missing {missing}, extra {extra}", "one for each part")
        widths = {
            f"tensors.{name}": info.shape[-1]
            for name, info in self.tensors.items()
            if info.shape and (name == CENTROIDS or name.endswith(".v"))
        }
        if model := self.provenance.model:
            widths["model.d_model"] = model.d_model
        if len(set(widths.values())) > 1:
            raise wrong("d_model", widths, "one width")
        return self


def described(vector: Vector, tensors: Mapping[str, object]) -> dict[str, object]:
    """Return the canonical description of a vector whose tensors are described already."""
    made, tuning, gate = vector.provenance, vector.tuning, vector.gate
    arguments = thawed(made.arguments)
    strict_json.dumps(arguments)  # the only part that may hold anything
    provenance = {name: getattr(made, name) for name in ProvenanceRecord.model_fields}
    model = made.model and asdict(made.model)
    kinds = {kind: name for name, kind in KINDS.items()}
    raw = {
        "format_version": FORMAT_VERSION,
        "provenance": provenance | {"arguments": arguments, "model": model},
        "sites": [{"site": str(s), "term": kinds[type(term)]} for s, term in vector.terms.items()],
        "layers": [
            {"layer": layer, "norm": _norm(vector.direction(layer))}
            | asdict(vector.stats.get(layer, LayerStats()))
            for layer in sorted({*vector.layers, *vector.stats})
        ],
        "tuning": tuning and asdict(tuning) | {"scope": str(tuning.scope)},
        "gate": gate
        and {name: getattr(gate, name) for name in GateRecord.model_fields}
        | {"domains": list(gate.domains)},
        "tensors": dict(tensors),
    }
    return validated(VectorRecord, "", raw).model_dump()


def build_vector(record: VectorRecord, tensors: Mapping[str, Tensor]) -> Vector:
    """Return the vector of a checked description and its tensors, which are finite."""
    terms = {
        site: KINDS[kind](*(tensors[name] for name in tensor_names(site, kind)))
        for site, kind in record.kinds.items()
    }
    model = record.provenance.model
    made = Provenance(**dict(record.provenance) | {"model": model and model.info})
    stats = {}
    for entry in record.layers:
        measured = LayerStats(entry.residual_norm, entry.standard_error, entry.split_half_cosine)
        if measured != LayerStats():
            stats[entry.layer] = measured
    tuning, gate = None, None
    if found := record.tuning:
        tuning = Tuning(**dict(found) | {"scope": parse_scope(found.scope)})
    if record.gate:
        gate = DomainGate(**dict(record.gate), centroids=tensors[CENTROIDS])
    vector = Vector(terms, made, stats, tuning, gate)
    for entry in record.layers:
        norm = _norm(vector.direction(entry.layer))
        if not math.isclose(norm, entry.norm, rel_tol=_ROUNDING):
            raise wrong(
                f"the norm of layer {entry.layer}", entry.norm, f"that of its tensor, {norm}"
            )
    return vector


def _norm(direction: Tensor) -> float:
    """Return ‖v‖ to nine digits, in residual units: the same on every machine."""
    return float(f"{math.hypot(*direction.double().tolist()):.9g}")
