"""The description in a file's header → checked records, and these with the tensors → Vector."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from steer.algebra._file.layout import (
    CENTROIDS,
    FORMAT_VERSION,
    KINDS,
    PARTS,
    stored_norm,
    tensor_name,
)
from steer.algebra._gate import DomainGate
from steer.algebra._provenance import LayerStats, ModelInfo, Provenance, Tuning
from steer.algebra._scope import parse_scope
from steer.algebra._site import Residual, Site, parse_site
from steer.algebra._vector import Vector
from steer.errors import VectorFileError
from steer.store import _fields as fields
from steer.store._container import read_shape

_ROUNDING = 1e-6  # by which a cosine may leave [-1, 1], and a stored norm the tensor's
_TOP = ("format_version", "provenance", "sites", "layers", "tuning", "gate", "tensors")
_MADE = (
    "method",
    "arguments",
    "domain",
    "pairs",
    "pairs_fingerprint",
    "model",
    "license",
    "version",
)
_MODEL = ("model_id", "revision", "n_layers", "d_model", "config", "tokenizer", "template")
_LAYER = ("layer", "norm", "residual_norm", "standard_error", "split_half_cosine")
_TUNING = ("layer", "coefficient", "operator", "scope", "score", "kl")
_GATE = ("domains", "layer", "margin", "accuracy")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What the description says about one tensor."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True, slots=True)
class GateInfo:
    """A gate without its centroids; the fields are those of `DomainGate`."""

    domains: tuple[str, ...]
    layer: int
    margin: float
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Document:
    """A checked description."""

    provenance: Provenance
    kinds: Mapping[Site, str]
    norms: Mapping[int, float]
    stats: Mapping[int, LayerStats]
    tuning: Tuning | None
    gate: GateInfo | None
    tensors: Mapping[str, TensorInfo]


def read_document(value: object) -> Document:
    """Check a description and return its content."""
    top = fields.members("the description", value, _TOP)
    check_version(top)
    kinds = _kinds(top["sites"])
    layers = [site.layer for site in kinds if isinstance(site, Residual)]
    norms, stats = _layers(top["layers"], layers)
    document = Document(
        provenance=_provenance(top["provenance"]),
        kinds=kinds,
        norms=norms,
        stats=stats,
        tuning=_tuning(top["tuning"]),
        gate=_gate(top["gate"]),
        tensors=_tensors(top["tensors"]),
    )
    _check_names(document)
    _check_fit(document)
    return document


def check_version(document: Mapping[str, object], known: int = FORMAT_VERSION) -> None:
    """Refuse a description of a newer version of the format."""
    version = fields.integer("format_version", document.get("format_version"), low=1)
    if version > known:
        raise VectorFileError(
            "the file was written by a newer version of this library",
            found=f"format version {version}",
            expected=f"format version {known}",
            do="upgrade: pip install --upgrade residual-steer",
        )


def _provenance(value: object) -> Provenance:
    made = fields.members("provenance", value, _MADE)
    return Provenance(
        method=fields.text("provenance.method", made["method"]),
        arguments=fields.mapping("provenance.arguments", made["arguments"]),
        domain=fields.optional_text("provenance.domain", made["domain"]),
        pairs=fields.integer("provenance.pairs", made["pairs"]),
        pairs_fingerprint=fields.optional_text(
            "provenance.pairs_fingerprint", made["pairs_fingerprint"]
        ),
        model=None if made["model"] is None else read_model(made["model"]),
        license=fields.optional_text("provenance.license", made["license"]),
        version=fields.optional_text("provenance.version", made["version"]),
    )


def read_model(value: object) -> ModelInfo:
    """Return what identifies a model, checked."""
    model = fields.members("provenance.model", value, _MODEL)
    return ModelInfo(
        model_id=fields.text("model.model_id", model["model_id"]),
        revision=fields.optional_text("model.revision", model["revision"]),
        n_layers=fields.integer("model.n_layers", model["n_layers"], low=1),
        d_model=fields.integer("model.d_model", model["d_model"], low=1),
        config=fields.text("model.config", model["config"], empty=True),
        tokenizer=fields.text("model.tokenizer", model["tokenizer"], empty=True),
        template=fields.text("model.template", model["template"], empty=True),
    )


def _kinds(value: object) -> dict[Site, str]:
    kinds: dict[Site, str] = {}
    for item in fields.array("sites", value):
        entry = fields.members("an entry of sites", item, ("site", "term"))
        site = parse_site(fields.text("the name of a site", entry["site"]))
        kind = fields.text(f"the term at {site}", entry["term"])
        if kind not in KINDS:
            raise fields.wrong(f"the term at {site}", repr(kind), " | ".join(KINDS))
        if site in kinds:
            raise fields.wrong("sites", f"{site} twice", "each site once")
        kinds[site] = kind
    return kinds


def _layers(value: object, expected: list[int]) -> tuple[dict[int, float], dict[int, LayerStats]]:
    norms: dict[int, float] = {}
    stats: dict[int, LayerStats] = {}
    entries = fields.array("layers", value)
    for item in entries:
        entry = fields.members("an entry of layers", item, _LAYER)
        layer = fields.integer("the layer of an entry of layers", entry["layer"], low=-1)
        norms[layer] = fields.number(f"the norm of layer {layer}", entry["norm"], low=0.0)
        measured = LayerStats(
            fields.optional_number("residual_norm", entry["residual_norm"], low=0.0),
            fields.optional_number("standard_error", entry["standard_error"], low=0.0),
            fields.optional_number(
                "split_half_cosine",
                entry["split_half_cosine"],
                low=-1.0 - _ROUNDING,
                high=1.0 + _ROUNDING,
            ),
        )
        if measured != LayerStats():
            stats[layer] = measured
    if set(norms) != set(expected) or len(entries) != len(expected):
        raise fields.wrong("layers", f"layers {sorted(norms)}", f"the layers of sites, {expected}")
    return norms, stats


def _tuning(value: object) -> Tuning | None:
    if value is None:
        return None
    tuning = fields.members("tuning", value, _TUNING)
    return Tuning(
        layer=fields.optional_integer("tuning.layer", tuning["layer"], low=-1),
        coefficient=fields.number("tuning.coefficient", tuning["coefficient"]),
        operator=fields.text("tuning.operator", tuning["operator"]),
        scope=parse_scope(fields.text("tuning.scope", tuning["scope"])),
        score=fields.optional_number("tuning.score", tuning["score"], low=0.0, high=1.0),
        kl=fields.optional_number("tuning.kl", tuning["kl"]),
    )


def _gate(value: object) -> GateInfo | None:
    if value is None:
        return None
    gate = fields.members("gate", value, _GATE)
    domains = fields.array("gate.domains", gate["domains"])
    return GateInfo(
        domains=tuple(fields.text("a name of gate.domains", name) for name in domains),
        layer=fields.integer("gate.layer", gate["layer"], low=-1),
        margin=fields.number("gate.margin", gate["margin"], low=0.0),
        accuracy=fields.optional_number("gate.accuracy", gate["accuracy"], low=0.0, high=1.0),
    )


def _tensors(value: object) -> dict[str, TensorInfo]:
    infos: dict[str, TensorInfo] = {}
    for name, item in fields.mapping("tensors", value).items():
        entry = fields.members(f"tensors.{name}", item, ("dtype", "shape", "sha256"))
        infos[name] = TensorInfo(
            dtype=fields.text(f"the dtype of {name}", entry["dtype"]),
            shape=read_shape(f"tensors.{name}", entry["shape"]),
            sha256=fields.text(f"the checksum of {name}", entry["sha256"]),
        )
    return infos


def _check_names(document: Document) -> None:
    """The tensors must be those that the sites and the gate ask for."""
    expected = {
        tensor_name(site, part) for site, kind in document.kinds.items() for part in PARTS[kind]
    }
    if document.gate:
        expected.add(CENTROIDS)
    if set(document.tensors) != expected:
        missing = sorted(expected - set(document.tensors))[:5]
        extra = sorted(set(document.tensors) - expected)[:5]
        raise fields.wrong("tensors", f"missing {missing}, extra {extra}", "one for each part")


def _check_fit(document: Document) -> None:
    """Widths must agree with each other, and layers with the model's number of layers."""
    model, gate, tuning = document.provenance.model, document.gate, document.tuning
    widths = {
        f"tensors.{name}": info.shape[-1]
        for name, info in document.tensors.items()
        if info.shape and (name == CENTROIDS or name.endswith(".v"))
    }
    if model:
        widths["model.d_model"] = model.d_model
    if len(set(widths.values())) > 1:
        raise fields.wrong("d_model", widths, "one width")
    tuned = None if tuning is None else tuning.layer
    layers = [*document.norms, *([gate.layer] if gate else []), *([] if tuned is None else [tuned])]
    if model and max(layers, default=-1) >= model.n_layers:
        raise fields.wrong("a layer", f"layer {max(layers)}", f"layers below {model.n_layers}")
    if tuned is not None and tuned not in document.norms:
        raise fields.wrong("tuning.layer", tuned, f"null, or one of {sorted(document.norms)}")


def build_vector(document: Document, tensors: Mapping[str, Tensor]) -> Vector:
    """Return the vector of a checked description."""
    terms = {
        site: KINDS[kind](*(tensors[tensor_name(site, part)] for part in PARTS[kind]))
        for site, kind in document.kinds.items()
    }
    gate = None
    if info := document.gate:
        gate = DomainGate(info.domains, tensors[CENTROIDS], info.layer, info.margin, info.accuracy)
    vector = Vector(terms, document.provenance, document.stats, document.tuning, gate)
    for layer, norm in document.norms.items():
        found = stored_norm(vector.direction(layer))
        if not math.isclose(found, norm, rel_tol=_ROUNDING):
            raise fields.wrong(f"the norm of layer {layer}", norm, f"that of its tensor, {found}")
    return vector
