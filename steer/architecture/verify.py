"""Check the parts of a model against one small forward of the model itself."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from steer.architecture.architecture import Architecture
from steer.architecture.output import block_output
from steer.architecture.probe import ROWS, TOKENS, evaluating, probe_ids, same_random_state
from steer.architecture.tree import by_hand
from steer.errors import ArchitectureError


def verify_architecture(architecture: Architecture) -> None:
    """Run the model once on eight tokens and compare what is seen with what should be.

    The body runs once and the embedding gets the token ids; every block runs exactly once, in
    order, and gives `[batch, pos, d_model]`; `unembed` of the last block's output equals the
    model's logits.

    Args:
        architecture: The parts to check. The model's training flags, hooks and gradients and
            the global random state are left as they were, also on failure.

    Raises:
        ArchitectureError: One of these does not hold, or the model cannot be run.
    """
    _check_weights(architecture)
    model = architecture.model
    with torch.no_grad(), evaluating(model), same_random_state(model):
        seen = _watched_forward(architecture)
        _check_run(architecture, seen)
        _check_logits(architecture, seen)


@dataclass
class _Seen:
    """What one forward of the model showed."""

    order: list[int] = field(default_factory=list)
    outputs: dict[int, Any] = field(default_factory=dict)
    body_calls: int = 0
    embedded: bool = False
    logits: Any = None


def _watched_forward(architecture: Architecture) -> _Seen:
    """Run the model with hooks on blocks, body and embedding."""
    model, seen = architecture.model, _Seen()
    ids = probe_ids(model.config, architecture.embedding, architecture.vocab)

    def on_block(index: int, output: Any) -> None:
        seen.order.append(index)
        seen.outputs[index] = output

    def on_body(*_: Any) -> None:
        seen.body_calls += 1

    def on_embedding(_: nn.Module, args: Any, kwargs: Any, __: Any) -> None:
        given = [x.to(ids) for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        seen.embedded |= any(torch.equal(x.flatten(), ids.flatten()) for x in given)

    with ExitStack() as hooks:
        handle = architecture.body.register_forward_hook(on_body)
        hooks.callback(handle.remove)
        handle = architecture.embedding.register_forward_hook(on_embedding, with_kwargs=True)
        hooks.callback(handle.remove)
        for index, block in enumerate(architecture.blocks):
            handle = block.register_forward_hook(lambda _m, _i, out, at=index: on_block(at, out))
            hooks.callback(handle.remove)
        seen.logits = _forward(model, ids)
    return seen


def _forward(model: nn.Module, ids: Tensor) -> Tensor:
    """Return the model's own logits.

    Raises:
        ArchitectureError: The call fails, or gives something else.
    """
    try:
        out = model(input_ids=ids, use_cache=False)
        logits = out.logits if hasattr(out, "logits") else out[0]
        if not isinstance(logits, Tensor):
            raise TypeError(f"logits are a {type(logits).__name__}")
    except Exception as error:
        raise ArchitectureError(
            f"{type(model).__name__} cannot be run on {ROWS} × {TOKENS} token ids",
            found=f"{type(error).__name__}: {error}",
            expected="model(input_ids=ids, use_cache=False) gives logits",
            do="make this call work: every text is run by it",
        ) from error
    return logits


def _check_weights(architecture: Architecture) -> None:
    """Raise if the weights are on the meta device and nothing will bring them in."""
    model = architecture.model
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    if on_meta and not any(hasattr(module, "_hf_hook") for module in model.modules()):
        raise ArchitectureError(
            f"{type(model).__name__} cannot be checked: it has no weights",
            found="parameters on the meta device",
            expected="loaded weights",
            do="load the weights: from_pretrained without device_map='meta'",
        )


def _check_run(architecture: Architecture, seen: _Seen) -> None:
    """Raise unless every block ran once and in order and gave the right shape."""
    expected = list(range(architecture.n_layers))
    if seen.order != expected:
        raise _refused(
            architecture,
            f"the blocks {architecture.names['blocks']} do not run one after the other",
            found=f"blocks run in a forward over text: {_shortened(seen.order)}",
            expected=f"each once, in order: {_shortened(expected)}",
        )
    if seen.body_calls != 1:
        raise _refused(
            architecture,
            f"the body {_named(architecture, 'body')} does not run once in a forward",
            found=f"{seen.body_calls} calls",
            expected="1 call",
        )
    if not seen.embedded:
        raise _refused(
            architecture,
            f"the embedding {_named(architecture, 'embedding')} is not the token embedding",
            found="it is not called with the token ids",
            expected="one call with them in a forward",
        )
    shape = (ROWS, TOKENS, architecture.d_model)
    for index, output in seen.outputs.items():
        if (found := tuple(block_output(output).shape)) != shape:
            raise _refused(
                architecture,
                f"block {index} of {architecture.names['blocks']} gives no residual stream",
                found=f"an output of shape {found}",
                expected=f"[batch, pos, d_model] = {shape}",
            )


def _check_logits(architecture: Architecture, seen: _Seen) -> None:
    """Raise unless unembed(last block output) equals the model's logits."""
    h, logits = block_output(seen.outputs[architecture.n_layers - 1]), seen.logits
    if not torch.isfinite(logits).all():
        raise _refused(
            architecture,
            f"{type(architecture.model).__name__} computes logits that are not finite",
            found=f"NaN or infinity in {logits.dtype}",
            expected="finite logits for eight ordinary tokens",
            do="load the model in bfloat16 or float32; check that its weights are loaded",
        )
    ours = _unembedded(architecture, h)
    expected = f"equal to the model's logits {tuple(logits.shape)}"
    if ours.shape != logits.shape:
        found = f"a shape of {tuple(ours.shape)}"
        raise _refused(architecture, _UNEQUAL, found=found, expected=expected)
    scale = logits.double().abs().max()
    error = float((ours.to(logits.device).double() - logits.double()).abs().max() / scale)
    limit = max(1e-5, 4 * max(torch.finfo(t.dtype).eps for t in (h, ours, logits)))
    if not error <= limit:
        raise _refused(
            architecture,
            _UNEQUAL,
            found=f"a difference of {error:.1e} of the largest logit, for {_head(architecture)}",
            expected=f"{expected} to {limit:.1e}",
            do=by_hand(**_names_in_use(architecture)) + "; if they are right, the model does "
            "something to its logits that steer.architecture.head has no rule for",
        )


_UNEQUAL = "unembed(output of the last block) does not give the model's logits"


def _unembedded(architecture: Architecture, h: Tensor) -> Tensor:
    try:
        return architecture.unembed(h)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise _refused(
            architecture,
            _UNEQUAL,
            found=f"{type(error).__name__}: {error}, for {_head(architecture)}",
            expected="logits",
        ) from error


def _head(architecture: Architecture) -> str:
    """Return final norm, projection, unembedding and logit rules in words."""
    parts = [
        _named(architecture, part)
        for part in ("final_norm", "projection", "unembedding")
        if part in architecture.names
    ]
    return ", ".join(parts + [str(rule) for rule in architecture.logit_rules])


def _named(architecture: Architecture, part: str) -> str:
    """Return the name and class of a part."""
    name = architecture.names[part] or "(the model itself)"
    return f"{name} ({type(getattr(architecture, part)).__name__})"


def _refused(
    architecture: Architecture, what: str, *, found: str, expected: str, do: str | None = None
) -> ArchitectureError:
    advice = do or f"if these are wrong, {by_hand(**_names_in_use(architecture))}"
    return ArchitectureError(what, found=found, expected=expected, do=advice)


def _names_in_use(architecture: Architecture) -> dict[str, str]:
    parts = ("blocks", "final_norm", "unembedding", "embedding")
    return {part: architecture.names[part] for part in parts}


def _shortened(order: Sequence[int], limit: int = 12) -> str:
    shown = ", ".join(map(str, order[:limit])) or "none"
    return f"{shown}, … ({len(order)} in all)" if len(order) > limit else shown
