"""Verification of the parts of a model in one small forward of the model itself."""

from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from steer.errors import ArchitectureError
from steer.network._architecture.architecture import Architecture
from steer.network._architecture.causal import check_causal
from steer.network._architecture.output import block_output
from steer.network._architecture.probe import (
    ROWS,
    TOKENS,
    evaluating,
    probe_ids,
    run,
    same_random_state,
)
from steer.network._architecture.readout import fit_readout
from steer.network._architecture.refused import (
    instead_of_a_stream,
    part_name,
    refused,
    wrong_part,
)
from steer.network._architecture.tree import block_counts, by_hand, classes


def verify_architecture(
    candidates: Sequence[Architecture], named: Set[str] = frozenset()
) -> Architecture:
    """Return the first candidate that a small forward confirms, with its readout fitted.

    The body must run once, the embedding must get the token ids, and every block must run once, in
    order, with a residual stream as output. The readout must give the model's logits. A second
    forward with a padded row checks that the model is causal.
    """
    model = candidates[0].model
    _check_weights(candidates[0])
    with torch.no_grad(), evaluating(model), same_random_state(model):
        held, seen = _first_that_holds(candidates, named)
        check_causal(held, seen.ids, seen.logits)
    return held


def _first_that_holds(
    candidates: Sequence[Architecture], named: Set[str]
) -> tuple[Architecture, "_Seen"]:
    errors = []
    for candidate in candidates:
        try:
            seen = _watched_forward(candidate)
            _check_run(candidate, seen)
            h = block_output(seen.outputs[candidate.n_layers - 1])
            return fit_readout(candidate, h, seen.ids, seen.logits, named), seen
        except ArchitectureError as error:
            errors.append(error)
    if len(errors) == 1 or instead_of_a_stream(candidates[0].model):
        raise errors[0]
    tried = [
        f"{part_name(candidate, 'blocks')}: {error.what}"
        for candidate, error in zip(candidates, errors, strict=True)
    ]
    raise ArchitectureError(
        f"the decoder blocks of {type(candidates[0].model).__name__} are not found",
        found="; ".join(tried),
        expected="one list of modules that run once each, in order, and lead to the logits",
        do=by_hand(blocks=candidates[0].names["blocks"], final_norm=None),
    ) from errors[0]


@dataclass
class _Seen:
    """Observations from one forward of the model."""

    ids: Tensor
    logits: Tensor
    order: list[int] = field(default_factory=list)
    outputs: dict[int, Any] = field(default_factory=dict)
    body_calls: int = 0
    embedded: bool = False
    outside: list[str] = field(default_factory=list)


def _watched_forward(architecture: Architecture) -> _Seen:
    """Run the model with hooks on blocks, body and embedding."""
    model = architecture.model
    ids = probe_ids(model.config, architecture.embedding, architecture.vocab)
    seen = _Seen(ids, torch.empty(0))

    def on_block(index: int, _: nn.Module, __: Any, output: Any) -> None:
        seen.order.append(index)
        seen.outputs[index] = output

    def on_body(*_: Any) -> None:
        seen.body_calls += 1

    def on_embedding(_: nn.Module, args: Any, kwargs: Any, __: Any) -> None:
        given = [x.to(ids) for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        seen.embedded |= any(torch.equal(x.flatten(), ids.flatten()) for x in given)

    def on_outside(name: str, *_: Any) -> None:
        seen.outside.append(name)

    hooks = [
        architecture.body.register_forward_hook(on_body),
        architecture.embedding.register_forward_hook(on_embedding, with_kwargs=True),
        *(m.register_forward_hook(partial(on_block, k)) for k, m in enumerate(architecture.blocks)),
        *(m.register_forward_hook(partial(on_outside, n)) for n, m in _outside(architecture)),
    ]
    with ExitStack() as stack:
        for hook in hooks:
            stack.enter_context(hook)
        seen.logits = run(model, ids)
    return seen


def _check_weights(architecture: Architecture) -> None:
    """Refuse weights on the meta device, unless accelerate's hooks load them."""
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
    """Refuse parts unless each block ran once, in order, with a stream; and infinite logits."""
    expected = list(range(architecture.n_layers))
    if not expected:
        raise wrong_part(
            architecture,
            f"{architecture.names['blocks']} is empty",
            found="a model without decoder blocks",
            expected="at least one",
        )
    if seen.order != expected:
        raise _other_order(architecture, seen.order)
    if seen.outside:
        raise wrong_part(
            architecture,
            f"{architecture.names['blocks']} does not hold all of the decoder blocks",
            found=f"{', '.join(seen.outside)} ran too",
            expected="one list of all blocks",
        )
    if seen.body_calls != 1:
        raise wrong_part(
            architecture,
            f"the body {part_name(architecture, 'body')} does not run once in a forward",
            found=f"{seen.body_calls} calls",
            expected="1 call",
        )
    if not seen.embedded:
        raise wrong_part(
            architecture,
            f"the embedding {part_name(architecture, 'embedding')} is not the token embedding",
            found="it is not called with the token ids",
            expected="one call with them in a forward",
        )
    shape = (ROWS, TOKENS, architecture.d_model)
    for index, output in seen.outputs.items():
        if (found := tuple(block_output(output).shape)) != shape:
            raise wrong_part(
                architecture,
                f"block {index} of {architecture.names['blocks']} gives no residual stream",
                found=f"an output of shape {found}",
                expected=f"[batch, pos, d_model] = {shape}",
            )
    if not torch.isfinite(seen.logits).all():
        raise refused(
            architecture.model,
            f"{type(architecture.model).__name__} computes logits that are not finite",
            found=f"NaN or infinity in {seen.logits.dtype}",
            expected="finite logits for a few ordinary tokens",
            do="load the model in bfloat16 or float32; check that its weights are loaded",
        )


def _other_order(architecture: Architecture, order: Sequence[int]) -> ArchitectureError:
    """Return the error for blocks that do not run once each and in order."""
    every = range(architecture.n_layers)
    missing = [index for index in every if index not in order]
    if order and len(set(order)) == len(order) and list(order) == sorted(order):
        return refused(
            architecture.model,
            f"some blocks of {type(architecture.model).__name__} do not run on text alone",
            found=f"{classes(architecture.blocks[i] for i in missing)} at {_shortened(missing)} "
            "did not run",
            expected=f"every block in every forward: {_shortened(every)}",
            do="take the text model without these blocks: a layer of a vector is counted over all "
            "blocks, and there is no stream to steer or record where one does not run",
        )
    return wrong_part(
        architecture,
        f"the blocks {architecture.names['blocks']} do not run one after the other",
        found=f"blocks run in a forward over text: {_shortened(order)}",
        expected=f"each once, in order: {_shortened(every)}",
    )


def _outside(architecture: Architecture) -> Iterator[tuple[str, nn.Module]]:
    """Yield other modules of the blocks' classes, if the list is not as long as configured."""
    config: Any = architecture.model.config
    if architecture.n_layers not in block_counts(config.get_text_config(decoder=True)):
        inside = {module for block in architecture.blocks for module in block.modules()}
        kinds = tuple({type(block) for block in architecture.blocks})
        for name, module in architecture.model.named_modules():
            if isinstance(module, kinds) and module not in inside:
                yield name, module


def _shortened(order: Sequence[int], limit: int = 12) -> str:
    shown = ", ".join(map(str, order[:limit])) or "none"
    return f"{shown}, … ({len(order)} in all)" if len(order) > limit else shown
