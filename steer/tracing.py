"""Steering through nnsight: a model that it runs, and one call inside a trace of your own."""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steer._check import as_list, integer, need
from steer.algebra import CoefficientsLike, Composition, Part, Vector, as_composition
from steer.algebra._coefficients import given
from steer.engine._nnsight import NNsightEngine
from steer.engine._nnsight.body import inject
from steer.engine._nnsight.program import edits_of, refuse
from steer.engine._nnsight.traces import prepare
from steer.engine._steps import placed
from steer.errors import ArchitectureError, CapabilityError, RowsError
from steer.model import Model
from steer.model._loading.load import loading
from steer.model._loading.location import Location
from steer.model._loading.options import shared_options
from steer.network import find_architecture
from steer.network._architecture.find import PartNames
from steer.network._compatibility import check_residual
from steer.network._fingerprint import model_info

Injection = Callable[[Any], dict[int, Float[Tensor, "batch pos d_model"]]]


class TracedModel(Model):
    """A model that nnsight runs, on this machine or on a server that holds its weights.

    `steered`, `generate`, `logprobs`, `logits` and `activations` are those of `Model`; each call is
    one trace. Calls of the model itself are not steered: inside a trace of your own use `apply`.

    Args:
        language_model: A `nnsight.TransformersModel` for the task `text-generation`.
        tokenizer: The tokenizer for prompts, if it is not the one nnsight holds, to which nnsight
            adds a padding token where it has none.
        remote: False runs it here. True sends every call to the server that nnsight is configured
            for, a URL to another; no weights are loaded then. `"local"` rehearses that here.
            `from_pretrained` takes it too, and the id under which the server holds the model.
        chat_template_kwargs: See `Model`.
        **parts: See `Model`.

    Raises:
        ArchitectureError: It is not a model of nnsight, or its parts are not found. Without weights
            on this machine only their names and number are checked.
    """

    _own = (*Model._own, "remote")

    def __init__(
        self,
        language_model: Any,
        tokenizer: Any = None,
        *,
        remote: bool | str = False,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **parts: Unpack[PartNames],
    ) -> None:
        skeleton = _module_of(language_model)
        if not remote:
            language_model.dispatch()
            skeleton = language_model._module
        self.language_model = language_model
        elsewhere = any(p.is_meta for p in skeleton.parameters())
        if elsewhere:
            skeleton.eval()  # a skeleton is born in training mode
        super().__init__(
            skeleton,
            language_model.tokenizer if tokenizer is None else tokenizer,
            chat_template_kwargs=chat_template_kwargs,
            engine=lambda architecture: NNsightEngine(architecture, language_model, remote),
            verify=not elsewhere,
            **parts,
        )

    @classmethod
    def _at(cls, location: Location, tokenizer: Any, own: Mapping[str, Any]) -> Self:
        """Load the model that is at a location through nnsight; with `remote`, only its shape."""
        from nnsight import TransformersModel

        if location.device is not None:
            need("a device for nnsight", "accelerate")
        held = copy.deepcopy(tokenizer)  # nnsight gives it a padding token
        with loading(location):
            loaded = TransformersModel(
                location.name, task="text-generation", tokenizer=held, **location.options
            )
        if own.get("remote"):
            _take_generation_config(loaded._module, location.name, shared_options(location.options))
        return cls(loaded, tokenizer, **own)


def injection(
    what: Vector | Part | Composition,
    model: Any,
    coefficients: CoefficientsLike | None = None,
    /,
    *,
    prompt_lengths: Sequence[int] | None = None,
    **by_domain: float,
) -> Injection:
    """Return a composition as a function to be called inside a trace, also a remote one.

    `push = injection(knobs, model, 0.8)`, then `with model.trace(…, remote=True): push(model)`. It
    must be called before the trace reads anything at or above the layers that it steers.

    Args:
        what: A vector, a part, or a composition; residual sites only, without a gate.
        model: The traced model: a `TracedModel`, or a `nnsight.TransformersModel`.
        coefficients: See `Model.steered`; one row per row of the trace, or of the invoke.
        prompt_lengths: Tokens of each row's prompt, for scopes that need them.
        **by_domain: Coefficients by domain.

    Returns:
        A function of the nnsight model that returns the residual stream `[batch pos d_model]` at
        each layer that it steered, after the steering.

    Raises:
        ArchitectureError: The model is not one that nnsight runs.
        CapabilityError: The composition has weight sites or a gate.
        CompositionError: Domains and coefficients do not go together.
        FitError: A vector has another width than the model, or layers beyond it.
        RowsError: Coefficient rows and prompt lengths differ in number; the function raises it
            if the rows of the trace do.
        ArgumentError: The prompt lengths are not numbers of tokens.
        ScopeError: A scope needs the prompts' lengths.
    """
    composition = as_composition(what)
    value = given(coefficients, by_domain, composition.domains, ("prompt_lengths",))
    if value is not None:
        composition = composition(value)
    refuse(composition)
    _refuse_gate(composition)
    if prompt_lengths is not None:
        counts = as_list("prompt_lengths", prompt_lengths)
        prompt_lengths = [integer("prompt_lengths", count, least=0) for count in counts]
    rows = _rows(composition, prompt_lengths)
    blocks = _blocks(model, composition)
    lengths = None if prompt_lengths is None else torch.tensor(prompt_lengths)
    edits = edits_of([(composition, composition.coefficients)], lengths, remote=True)
    prepare(True)
    return partial(inject, edits, blocks, placed(composition), rows)


def apply(
    what: Vector | Part | Composition,
    model: Any,
    coefficients: CoefficientsLike | None = None,
    /,
    *,
    prompt_lengths: Sequence[int] | None = None,
    **by_domain: float,
) -> dict[int, Float[Tensor, "batch pos d_model"]]:
    """Steer the trace that calls this in its body, on this machine.

    `with model.trace("…"): apply(knobs, model, 0.8); …`. In `with model.generate(…) as tracer:` put
    it under `for _ in tracer.iter[:n]:`. For a remote trace see `injection`.

    Args:
        what: See `injection`.
        model: See `injection`.
        coefficients: See `injection`.
        prompt_lengths: See `injection`.
        **by_domain: Coefficients by domain.

    Returns:
        The residual stream at each steered layer, after the steering; save what you keep.

    Raises:
        ArchitectureError: See `injection`.
        CapabilityError: See `injection`.
        CompositionError: See `injection`.
        FitError: See `injection`.
        RowsError: The rows of the trace differ in number from coefficients or lengths.
        ArgumentError: See `injection`.
        ScopeError: See `injection`.
    """
    push = injection(what, model, coefficients, prompt_lengths=prompt_lengths, **by_domain)
    return push(model.language_model if isinstance(model, TracedModel) else model)


def _take_generation_config(skeleton: Any, name: str | Path, place: dict[str, Any]) -> None:
    """Give a model without weights the generation config of the server's copy."""
    from transformers import GenerationConfig

    with suppress(OSError):  # a model may have none: what its config says then holds
        skeleton.generation_config = GenerationConfig.from_pretrained(str(name), **place)


def _blocks(model: Any, composition: Composition) -> str:
    """Return the name of the decoder blocks, after checking layers and width."""
    if isinstance(model, TracedModel):
        architecture = model.architecture
    else:
        architecture = find_architecture(_module_of(model), verify=False)
    info = model_info(architecture.model, None, architecture)
    for domain, part in composition.parts.items():
        check_residual(domain, part.vector, info)
    return architecture.names["blocks"]


def _module_of(model: Any) -> nn.Module:
    """Return the module that a model of nnsight wraps."""
    module = getattr(model, "_module", None)
    if isinstance(module, nn.Module):
        return module
    raise ArchitectureError(
        "this is not a model that nnsight runs",
        found=type(model).__name__,
        expected="a nnsight.TransformersModel, or a TracedModel inside a trace of its own",
        do="wrap it: TransformersModel(hf_model, tokenizer=tokenizer, task='text-generation')",
    )


def _rows(composition: Composition, lengths: Sequence[int] | None) -> int | None:
    """Return how many rows a trace must have; None for any number."""
    rows = len(composition.coefficients) if composition.per_row else None
    if lengths is None:
        return rows
    if rows in (None, len(lengths)):
        return len(lengths)
    raise RowsError(
        "coefficient rows and prompt lengths differ in number",
        found=f"{rows} rows of coefficients, {len(lengths)} lengths",
        expected="one of each per row of the trace",
        do="give one length per row, padding not counted",
    )


def _refuse_gate(composition: Composition) -> None:
    if composition.gate is not None:
        raise CapabilityError(
            "a gate cannot be decided inside a trace of your own",
            found=f"a gate at layer {composition.gate.layer}",
            expected="a composition without a gate",
            do="steer with TracedModel(...).steered(...), which reads the gate in a trace before",
        )
