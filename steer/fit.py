"""Whether a composition fits a model: widths, layers, weight names and fingerprints."""

import warnings

from torch import nn

from steer.composition import Composition
from steer.errors import FitError
from steer.provenance import ModelInfo
from steer.site import Weight
from steer.vector import Vector


def check_fit(
    composition: Composition, info: ModelInfo, model: nn.Module, *, strict: bool = True
) -> None:
    """Refuse a composition that does not fit a model.

    Args:
        composition: What is to be injected.
        info: What identifies the model.
        model: The model, for the names and shapes of its weights.
        strict: Whether another configuration, tokenizer or chat template is refused as well;
            if not, it is warned of.

    Raises:
        FitError: A width, layer, weight name or shape does not exist in the model, or, if strict,
            a fingerprint differs.
    """
    parameters = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for domain, part in composition.parts.items():
        _check_residual(domain, part.vector, info)
        _check_weights(domain, part.vector, info, parameters)
        _check_fingerprints(domain, part.vector, info, strict)
    gate = composition.gate
    if gate is not None and (
        gate.centroids.shape[1] != info.d_model or gate.layer >= info.n_layers
    ):
        raise FitError(
            "the gate does not fit this model",
            found=f"layer {gate.layer}, width {gate.centroids.shape[1]}",
            expected=f"a layer below {info.n_layers}, width {info.d_model}",
            do="fit the gate on this model with steer.domain_gate(...)",
        )


def _check_residual(domain: str, vector: Vector, info: ModelInfo) -> None:
    width, top = vector.d_model, max(vector.layers, default=-1)
    if width is None or (width == info.d_model and top < info.n_layers):
        return
    raise FitError(
        f"the vector of domain {domain!r} does not fit this model",
        found=f"width {width}, layers up to {top} (made for {_maker(vector)})",
        expected=f"width {info.d_model}, layers 0 to {info.n_layers - 1} ({info.model_id})",
        do="extract the vector from this model: steer extract MODEL PAIRS -o FILE",
    )


def _check_weights(
    domain: str, vector: Vector, info: ModelInfo, parameters: dict[str, tuple[int, ...]]
) -> None:
    for site, term in vector.terms.items():
        if isinstance(site, Weight) and parameters.get(site.name) != term.shape:
            raise FitError(
                f"the vector of domain {domain!r} does not fit this model's weights",
                found=f"{site.name} of shape {term.shape} (made for {_maker(vector)})",
                expected=f"shape {parameters.get(site.name, 'none: no such parameter')}",
                do=f"take the difference of checkpoints of {info.model_id}",
            )


def _check_fingerprints(domain: str, vector: Vector, info: ModelInfo, strict: bool) -> None:
    made_for = vector.provenance.model
    if made_for is None:
        return
    pairs = {
        "configuration": (made_for.config, info.config),
        "tokenizer": (made_for.tokenizer, info.tokenizer),
        "chat template": (made_for.template, info.template),
    }
    differing = [name for name, (a, b) in pairs.items() if a and b and a != b]
    if not differing:
        return
    error = FitError(
        f"the vector of domain {domain!r} was made for another {' and '.join(differing)}",
        found=f"{_maker(vector)}",
        expected=info.model_id,
        do="extract it from this model, or pass strict=False if you know that it transfers",
    )
    if strict:
        raise error
    warnings.warn(str(error), stacklevel=4)


def _maker(vector: Vector) -> str:
    model = vector.provenance.model
    return "an unnamed model" if model is None else model.model_id
