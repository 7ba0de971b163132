"""Checks that a vector fits a model, and that two models differ in their weights alone."""

import re
import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from steer.algebra import Composition, ModelInfo, Vector, Weight
from steer.errors import FitError, SteerError
from steer.network._parameters.layout import listed
from steer.network._parameters.stand_in import run

_QUANTISED: "weakref.WeakKeyDictionary[nn.Module, set[tuple[int, ...]]]" = (
    weakref.WeakKeyDictionary()
)
_HARMLESS = (
    "architectures",
    "auto_map",
    "dtype",
    "id2label",
    "label2id",
    "max_position_embeddings",
    "name_or_path",
    "problem_type",
    "torch_dtype",
    "transformers_version",
    "use_cache",
)
_HARMLESS_PARTS = ("dropout", "pdrop", "token_id", "initializer", "attn_implementation", "output_")


def check_vector_fits_model(
    composition: Composition, info: ModelInfo, model: nn.Module, *, strict: bool = True
) -> None:
    """Refuse a composition with widths, layers, weights or fingerprints that the model lacks."""
    parameters = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for domain, part in composition.parts.items():
        check_residual(domain, part.vector, info)
        _check_weights(domain, part.vector, info, parameters, model)
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


def check_residual(domain: str, vector: Vector, info: ModelInfo) -> None:
    """Refuse a vector with another width than the model, or with layers beyond it."""
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
    domain: str,
    vector: Vector,
    info: ModelInfo,
    parameters: dict[str, tuple[int, ...]],
    model: nn.Module,
) -> None:
    for site, term in vector.terms.items():
        if not isinstance(site, Weight) or parameters.get(site.name) == term.shape:
            continue
        if not _quantised(model, site.name, term.shape):
            raise FitError(
                f"the vector of domain {domain!r} does not fit this model's weights",
                found=f"{site.name} of shape {term.shape} (made for {_maker(vector)})",
                expected=f"shape {parameters.get(site.name, 'none: no such parameter')}",
                do=_advice(site.name, term.shape, info, parameters),
            )


def _advice(
    name: str, shape: tuple[int, ...], info: ModelInfo, parameters: dict[str, tuple[int, ...]]
) -> str:
    """Return the advice for a missing parameter, which the layers of an adapter may hide."""
    owner, _, leaf = name.rpartition(".")
    inside = re.compile(rf"{re.escape(owner)}\.[^.]+\.{re.escape(leaf)}")
    hidden = [n for n, s in parameters.items() if s == shape and inside.fullmatch(n)]
    if name in parameters or not hidden:
        return f"take the difference of checkpoints of {info.model_id}"
    return (
        f"an adapter's layer hides it, as {hidden[0]}: pass Model(adapted.merge_and_unload(), "
        "tokenizer), in which the adapter is part of the weights, or Model(adapted.unload(), "
        "tokenizer), which leaves it out"
    )


def _quantised(model: nn.Module, name: str, shape: tuple[int, ...]) -> bool:
    """Return whether the module of that name is a quantised linear layer of this shape.

    Such modules hold packed or integer weights, often as buffers, so a vector of zeros shows the
    shape. The forward of the class runs, since the module itself may be steered.
    """
    owner, _, leaf = name.rpartition(".")
    module: Any = dict(model.named_modules()).get(owner)
    if module is None or leaf != "weight" or len(shape) != 2:
        return False
    if shape in _QUANTISED.get(module, ()):
        return True
    held = [t for t in (*module.parameters(), *module.buffers()) if t is not None]
    plain = isinstance(getattr(module, leaf, None), nn.Parameter) and module.weight.ndim == 2
    if not held or (plain and module.weight.is_floating_point()):
        return False
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = torch.zeros(1, shape[1], dtype=dtype, device=held[0].device)
        try:
            with torch.no_grad():
                out = run(module, x)
        except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError):
            continue
        if isinstance(out, torch.Tensor) and tuple(out.shape) == (1, shape[0]):
            _QUANTISED.setdefault(module, set()).add(shape)
            return True
        return False
    return False


def _check_fingerprints(domain: str, vector: Vector, info: ModelInfo, strict: bool) -> None:
    made_for = vector.provenance.model
    if made_for is None or not (differing := fingerprint_differences(made_for, info)):
        return
    error = FitError(
        f"the vector of domain {domain!r} was made for another {' and '.join(differing)}",
        found=_maker(vector),
        expected=info.model_id,
        do="extract it from this model; if you know that it transfers, pass strict=False to "
        "lm.steered(…), or use vector.for_model(lm.info)",
    )
    _raise_or_warn(error, strict)


def fingerprint_differences(made_for: ModelInfo, info: ModelInfo) -> list[str]:
    """Return which of configuration, tokenizer and chat template differ, where both are known."""
    names = ("configuration", "tokenizer", "chat template")
    marks = ((m.config, m.tokenizer, m.template) for m in (made_for, info))
    return _differing(names, *marks)


def text_differences(base: tuple[str, str], aligned: tuple[str, str]) -> list[str]:
    """Return which of two `text_marks` differ, one line each, where both are known."""
    names = ("the tokenizer", "the chat template")
    return [f"{name} differs" for name in _differing(names, base, aligned)]


def _differing(names: Sequence[str], left: Sequence[str], right: Sequence[str]) -> list[str]:
    return [n for n, a, b in zip(names, left, right, strict=True) if a and b and a != b]


def config_differences(base: Mapping[str, Any], aligned: Mapping[str, Any]) -> list[str]:
    """Return the entries that differ and that change what weights compute, one line each."""
    if not base or not aligned:
        return []
    names = sorted(name for name in {**base, **aligned} if not _harmless(name))
    return [
        f"{name}: {base.get(name)} and {aligned.get(name)}"
        for name in names
        if base.get(name) != aligned.get(name)
    ]


def refuse_or_warn(
    base: str, aligned: str, lines: list[str], error: type[SteerError], *, strict: bool
) -> None:
    """Raise an error, or warn if not strict, that two models differ in these lines."""
    if lines:
        refusal = error(
            f"{base} and {aligned} differ in more than their weights",
            found=listed(lines),
            expected="the same configuration, tokenizer and chat template",
            do="use both with one tokenizer and template; strict=False if you know that it is "
            "harmless",
        )
        _raise_or_warn(refusal, strict)


def _raise_or_warn(error: SteerError, strict: bool) -> None:
    if strict:
        raise error
    warnings.warn(str(error), stacklevel=5)


def _harmless(name: str) -> bool:
    bare = name.removeprefix("_")
    return bare in _HARMLESS or any(part in bare for part in _HARMLESS_PARTS)


def _maker(vector: Vector) -> str:
    model = vector.provenance.model
    return "an unnamed model" if model is None else model.model_id
