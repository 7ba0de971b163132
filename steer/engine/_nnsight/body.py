"""The code inside a trace, on this machine or on a server without this library.

A remote trace travels as source with the values it names. These functions therefore use torch and
nnsight alone, take plain values, and are sent along by value.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# An edit: what to do, the tensors it needs (prompts first), and the first and last-but-one position
# of each prompt where it is done, or None for every token.
Edit = tuple[Callable[..., Tensor], tuple[Tensor, ...], Tensor | None, Tensor | None]
Edits = Mapping[int, Sequence[Edit]]


def module_at(model: Any, name: str) -> Any:
    """Return the module of a traced model with a dotted name; the model itself for an empty one."""
    for part in name.split(".") if name else ():
        model = model[int(part)] if part.isdigit() else getattr(model, part)
    return model


def stream_of(output: Any) -> Any:
    """Return the hidden state in a block's output: a tensor, or the first entry of a tuple."""
    return output if isinstance(output, Tensor) else output[0]


def with_stream(output: Any, h: Tensor) -> Any:
    """Return a block's output with another hidden state."""
    if isinstance(output, Tensor):
        return h
    rest = [h, *output[1:]]
    return output._make(rest) if hasattr(output, "_make") else type(output)(rest)


def for_rows(tensor: Tensor, h: Tensor) -> Tensor:
    """Return a tensor with one entry per prompt repeated for the rows of h, on its device."""
    tensor = tensor.to(h.device, h.dtype) if tensor.is_floating_point() else tensor.to(h.device)
    if tensor.shape[0] in (1, h.shape[0]):
        return tensor
    if h.shape[0] % tensor.shape[0]:
        raise ValueError(f"{tensor.shape[0]} coefficient rows for {h.shape[0]} prompts")
    return tensor.repeat_interleave(h.shape[0] // tensor.shape[0], dim=0)


def refuse(error: str, what: str, **hints: str) -> None:
    """Raise an error of this library; a `ValueError` where it is not installed, as on a server."""
    try:
        from steer import errors
    except ImportError:
        raise ValueError(f"{what}: {hints['found']}") from None
    raise getattr(errors, error)(what, **hints)


def check_rows(rows: int | None, h: Tensor) -> None:
    """Refuse a trace with another number of rows; None accepts any."""
    if rows not in (None, h.shape[0]):
        refuse(
            "RowsError",
            "coefficient rows and prompts differ in number",
            found=f"{rows} for {h.shape[0]} rows of the trace",
            expected="one coefficient row, and one prompt length, per row of the trace or invoke",
            do="give one for each, or one setting for all of them",
        )


def check_state(given: Mapping[str, Any], length: int) -> None:
    """Refuse a forward that continues from a state of unknown length."""
    mask = given.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] > length:
        return
    for name in ("cache_params", "state"):
        state = given.get(name)
        filled = getattr(state, "has_previous_state", None)
        if state is None or (filled is not None and not filled()):
            continue
        refuse(
            "CapabilityError",
            "the positions of these tokens are not known",
            found=f"{name} of type {type(state).__name__}, which does not tell its length",
            expected="a cache that knows its length, or an attention mask over all tokens so far",
            do="pass the attention mask, use TracedModel.generate, or the scope 'all'",
        )


def positions_of(model: Any) -> Tensor:
    """Return where each token of a traced model's forward stands, `[batch pos]`.

    They are what the model itself is told: position ids, else the attention mask, else the cache.
    """
    given = model.inputs[1]
    ids, mask = given.get("position_ids"), given.get("attention_mask")
    if isinstance(ids, Tensor) and ids.ndim == 2:
        return ids
    tokens = given["input_ids"]
    check_state(given, tokens.shape[1])
    if isinstance(mask, Tensor) and mask.ndim == 2:
        at = torch.where(mask.bool(), mask.long().cumsum(dim=1) - 1, -1)
        return at[:, -tokens.shape[1] :]
    cache = given.get("past_key_values")
    past = 0 if cache is None else int(cache.get_seq_length())
    return torch.arange(past, past + tokens.shape[1], device=tokens.device)[None, :]


def edited(
    h: Tensor, edits: Sequence[Edit], ends: Tensor | None = None, at: Tensor | None = None
) -> Tensor:
    """Return a residual stream after the edits of one layer."""
    for apply, tensors, low, high in edits:
        changed = apply(h, tuple(for_rows(t, h) for t in tensors))
        if low is None or high is None:
            h = changed
        else:
            if at is None:
                at = torch.arange(h.shape[1], device=h.device)[None, :]
                at = at if ends is None else at + for_rows(ends, h)[:, None] - h.shape[1]
            at = at.to(h.device)
            inside = (at >= for_rows(low, h)[:, None]) & (at < for_rows(high, h)[:, None])
            h = torch.where(inside[:, :, None], changed, h)
    return h


def walk(
    blocks: Any,
    edits: Edits,
    wanted: Collection[int] = (),
    ends: Tensor | None = None,
    at: Tensor | None = None,
    rows: int | None = None,
) -> dict[int, Tensor]:
    """Go through the blocks of one forward as they run: edit and read the residual stream."""
    found = {}
    for layer in sorted({*edits, *wanted}):
        if layer == -1:
            h = blocks[0].input
            check_rows(rows, h)
            h = edited(h, edits.get(layer, ()), ends, at)
            if layer in edits:
                blocks[0].input = h
        else:
            output = blocks[layer].output
            h = stream_of(output)
            check_rows(rows, h)
            h = edited(h, edits.get(layer, ()), ends, at)
            if layer in edits:
                blocks[layer].output = with_stream(output, h)
        if layer in wanted:
            found[layer] = h.detach()
    return found


def walk_steps(tracer: Any, blocks: Any, edits: Edits, lengths: Tensor) -> None:
    """Edit every forward of a generation, until it ends."""
    from nnsight.intervention.interleaver import OutOfOrderError

    if not edits:  # the loop below has no other end than a block that never comes
        return
    step = 0
    try:
        for step in tracer.iter[:]:
            walk(blocks, edits, ends=lengths + step)
    except OutOfOrderError:  # how nnsight tells that the generation is over
        if step == 0:
            raise


def inject(
    edits: Edits, name: str, placed: bool, rows: int | None, model: Any
) -> dict[int, Tensor]:
    """Edit the forward of a trace that somebody else wrote."""
    at = positions_of(model) if placed else None
    return walk(module_at(model, name), edits, wanted=tuple(edits), at=at, rows=rows)
