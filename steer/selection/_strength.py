"""Strengths in units that travel: displacement relative to the residual stream, and KL."""

from collections.abc import Sequence
from statistics import median
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from steer._check import number
from steer.algebra import Composition, Scope
from steer.errors import CompositionError
from steer.measure import NEUTRAL_PROMPTS, NeutralText, neutral_text
from steer.model import Model, check_model, exchange_batch
from steer.selection._calibration import calibrate

_PROMPTS, _TOKENS = 4, 16  # of the text on which norms are measured
_known: WeakKeyDictionary[Model, dict[str, list[float]]] = WeakKeyDictionary()


def stream_norm(model: Model, layer: int, scope: Scope, text: NeutralText | None = None) -> float:
    """Return the median ‖h‖ of the unsteered stream over the tokens of a scope.

    The first token and special tokens are left out: models use them as attention sinks, and their
    norms can be a hundred times those of the others.
    """
    check_model(model, "stream_norm")
    if text is not None:
        return _norms(model, [layer], scope, text)[0]
    known = _known.setdefault(model, {})
    if str(scope) not in known:
        read = neutral_text(model, NEUTRAL_PROMPTS[:_PROMPTS], max_new_tokens=_TOKENS)
        known[str(scope)] = _norms(model, range(model.n_layers), scope, read)
    return known[str(scope)][layer]


def _norms(model: Model, layers: Sequence[int], scope: Scope, text: NeutralText) -> list[float]:
    """Return the median norm at each layer, of one forward."""
    batch = exchange_batch(model.chat, text.prompts, text.responses)
    streams = model.engine.forward(batch, layers=layers, logits="none").residual
    special = {*model.tokenizer.all_special_ids}
    norms: list[Tensor] = []
    for ids, prompt, stream in zip(batch.ids, batch.prompt_lengths, streams, strict=True):
        chosen = scope.mask(torch.arange(len(ids))[None], torch.tensor([prompt]))[0].tolist()
        kept = [k for k, (i, c) in enumerate(zip(ids, chosen, strict=True)) if c and k]
        kept = [k for k in kept if ids[k] not in special]
        norms.append(torch.linalg.vector_norm(stream[:, kept].double(), dim=-1).cpu())
    each = torch.cat(norms, dim=1)
    if not each.shape[1]:
        raise CompositionError(
            "a strength cannot be given relative to the stream here",
            found=f"scope {str(scope)!r}, which means special tokens or the first one only",
            expected="a scope with tokens of the prompt or the response",
            do="give a coefficient, or kl=…",
        )
    return [median(row) for row in each.tolist()]


def displacement(
    model: Model, composition: Composition, coefficients: Sequence[float]
) -> float | None:
    """Return how far a setting displaces the stream, relative to its median norm.

    max over domains and layers of |c| ‖v_l‖ / median ‖h_l‖.
    """
    found = [
        abs(c) * vector.direction(layer).norm().item() / stream_norm(model, layer, part.scope)
        for c, part in zip(coefficients, composition.parts.values(), strict=True)
        for vector in (part.vector,)
        for layer in vector.layers
        if part.operator == "add" and layer >= 0 and part.scope.marker is None
    ]
    return max(found, default=None)


def at_displacement(model: Model, composition: Composition, relative: float) -> Composition:
    """Return a composition at coefficients that displace the stream by a share of its norm.

    Each domain gets c = r / max_l (‖v_l‖ / median ‖h_l‖), times its own coefficient.
    """
    relative = number("relative", relative, do="relative=0.3 is 30% of the stream's norm")
    scaled = []
    for name, part in composition.parts.items():
        alone = Composition({name: part}, torch.ones(1, 1, dtype=torch.float64))
        full = displacement(model, alone, [1.0])
        if not full:
            raise CompositionError(
                "a strength relative to the stream needs a vector that is added to it",
                found=f"{name!r}: {part.operator} of {'weights' if full is None else 'zero'}",
                expected="a residual vector, with the operator 'add' and a scope without a marker",
                do="give a coefficient, or kl=…",
            )
        scaled.append(relative / full)
    rows = composition.coefficients * torch.tensor(scaled, dtype=torch.float64)
    return composition(rows if composition.per_row else rows[0])


def at_kl(model: Model, composition: Composition, kl: float) -> Composition:
    """Return a composition at coefficients, all scaled alike, that cost a KL on neutral text."""
    if composition.per_row:
        raise CompositionError(
            "a KL is calibrated for one setting",
            found=f"{len(composition.coefficients)} rows of coefficients beside kl={kl!r}",
            expected="coefficients of one setting",
            do="calibrate each with steer.calibrate, or use relative=…, which keeps rows",
        )
    c = calibrate(model, composition, kl, most=1e4, tolerance=0.05, progress=False)
    return composition(composition.coefficients[0] * c)
