"""Vector → the description that goes into a file's header."""

import hashlib
import math
from collections.abc import Mapping

from torch import Tensor

from steer.algebra._file.layout import FORMAT_VERSION, kind_name, stored_norm
from steer.algebra._gate import DomainGate
from steer.algebra._provenance import LayerStats, ModelInfo, Tuning, thawed
from steer.algebra._vector import Vector
from steer.store._container import DTYPE_NAMES, tensor_bytes

_BLOCK = 2**17  # elements hashed at once, as float64


def describe(vector: Vector, tensors: Mapping[str, object]) -> dict[str, object]:
    """Return the description of a vector, JSON values only."""
    made = vector.provenance
    return {
        "format_version": FORMAT_VERSION,
        "provenance": {
            "method": made.method,
            "arguments": thawed(made.arguments),
            "domain": made.domain,
            "pairs": made.pairs,
            "pairs_fingerprint": made.pairs_fingerprint,
            "model": describe_model(made.model),
            "license": made.license,
            "version": made.version,
        },
        "sites": [
            {"site": str(site), "term": kind_name(term)} for site, term in vector.terms.items()
        ],
        "layers": [_layer(vector, layer) for layer in sorted({*vector.layers, *vector.stats})],
        "tuning": _tuning(vector.tuning),
        "gate": _gate(vector.gate),
        "tensors": dict(tensors),
    }


def describe_model(model: ModelInfo | None) -> dict[str, object] | None:
    """Return the description of a model, JSON values only."""
    if model is None:
        return None
    return {
        "model_id": model.model_id,
        "revision": model.revision,
        "n_layers": model.n_layers,
        "d_model": model.d_model,
        "config": model.config,
        "tokenizer": model.tokenizer,
        "template": model.template,
    }


def _layer(vector: Vector, layer: int) -> dict[str, object]:
    stats = vector.stats.get(layer, LayerStats())
    return {
        "layer": layer,
        "norm": stored_norm(vector.direction(layer)),
        "residual_norm": _float(stats.residual_norm),
        "standard_error": _float(stats.standard_error),
        "split_half_cosine": _float(stats.split_half_cosine),
    }


def _tuning(tuning: Tuning | None) -> dict[str, object] | None:
    if tuning is None:
        return None
    return {
        "layer": tuning.layer,
        "coefficient": _float(tuning.coefficient),
        "operator": tuning.operator,
        "scope": str(tuning.scope),
        "score": _float(tuning.score),
        "kl": _float(tuning.kl),
    }


def _gate(gate: DomainGate | None) -> dict[str, object] | None:
    if gate is None:
        return None
    return {
        "domains": list(gate.domains),
        "layer": gate.layer,
        "margin": _float(gate.margin),
        "accuracy": _float(gate.accuracy),
    }


def describe_tensor(tensor: Tensor, sha256: str) -> dict[str, object]:
    """Return the description of one tensor."""
    return {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "sha256": sha256}


def checksum(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's bytes."""
    return hashlib.sha256(tensor_bytes(tensor)).hexdigest()


def _float(value: float | None) -> float | None:
    """Return a plain float, so that 1, 1.0 and a NumPy 1.0 are written alike."""
    return None if value is None else float(value)


def values_checksum(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's shape and numbers, independent of its dtype."""
    digest = hashlib.sha256(repr(tuple(tensor.shape)).encode())
    rows = tensor.detach().reshape(tensor.shape or (1,))
    step = max(1, _BLOCK // max(1, math.prod(rows.shape[1:])))
    for some in rows.split(step):
        for block in some.reshape(-1).split(_BLOCK):
            digest.update(tensor_bytes(block.cpu().double()))
    return digest.hexdigest()
