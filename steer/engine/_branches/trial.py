"""Whether a model can be cut at a block, and its fastest batch size: tried on the model."""

import random
import time
from functools import partial

import torch
from torch import Tensor

from steer.algebra import Composition, Part, Scope, Vector, as_composition
from steer.engine._base import Batch
from steer.engine._branches.branches import branched_scores
from steer.engine._branches.scores import token_logprobs
from steer.engine._hooks import HooksEngine
from steer.engine._packing import LENGTH, Packing, attempt, distance, known_of, tolerance_of, tried
from steer.engine._reading import device_of, run_blocks
from steer.network import Architecture

_SIZES = {"cpu": (256, 512, 1024, 2048), "other": (1024, 4096, 16384, 65536)}
_GAIN = 0.03  # a larger size must be faster by this share to be taken


def uncut_reason(architecture: Architecture, longest: int = LENGTH) -> str:
    """Return why settings cannot be scored from a block on; empty if they can.

    The first call scores random texts under two settings both ways and compares the
    log-probabilities.
    """
    return tried(_tried, architecture, longest).reason


def fastest_tokens(architecture: Architecture) -> int:
    """Return the tokens of one forward at which a block is fastest, measured once per model."""
    known: dict[object, int] = known_of(architecture)
    if fastest_tokens not in known:
        device, found, best = device_of(architecture), 256, float("inf")
        for size in _SIZES["cpu" if device.type == "cpu" else "other"]:
            try:
                seconds = min(_seconds_per_token(architecture, size, device) for _ in range(2))
            except torch.OutOfMemoryError:
                break
            if seconds < best * (1 - _GAIN):
                best, found = seconds, size
        known[fastest_tokens] = found
    return known[fastest_tokens]


def _seconds_per_token(architecture: Architecture, size: int, device: torch.device) -> float:
    ids = torch.zeros(size // 64, 64, dtype=torch.long, device=device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    run_blocks(architecture, (0,), {"input_ids": ids}, _wait)
    return (clock() - start) / size


def _wait(index: int, h: Tensor) -> None:
    h[0, 0, 0].item()  # a GPU has finished when its result is here


def _tried(architecture: Architecture, length: int) -> Packing:
    batch = _texts(architecture.vocab, length)
    settings = torch.tensor([[0.0], [1.0]])
    tolerance = tolerance_of(architecture)
    unsteered = _plainly(architecture, _composition(architecture, Scope("all"))(0.0), batch)
    for part in ("all", "response"):
        composition = _composition(architecture, Scope(part))
        expected = [unsteered, _plainly(architecture, composition(1.0), batch)]
        run = partial(branched_scores, architecture, composition, settings, batch)
        found = attempt(partial(run, max_tokens=2 * length))
        if isinstance(found, str):
            return Packing(found, length)
        for row, scores in enumerate(found):
            plain = torch.stack([scored[row] for scored in expected])
            off = distance(scores[..., 0], plain)
            if not off <= tolerance:  # NaN is not
                return Packing(f"the result differs by {off:.1e} at {length} tokens", length)
    return Packing("", length)


def _composition(architecture: Architecture, scope: Scope) -> Composition:
    """Return a random direction at the middle layer and at the one above."""
    generator = torch.Generator().manual_seed(0)
    last = architecture.n_layers - 1
    layers = sorted({last // 2, min(last // 2 + 1, last)})
    directions = {n: torch.randn(architecture.d_model, generator=generator) for n in layers}
    return as_composition(Part(Vector.of(directions), "add", scope))


def _texts(vocab: int, length: int) -> Batch:
    """Return two prompts, the first with two responses, one of them of the whole length."""
    draw = random.Random(length)
    ids = [draw.randrange(vocab) for _ in range(length)]
    start = length // 2
    other = [draw.randrange(vocab) for _ in range(7)]
    rows = (tuple(ids), (*ids[:start], *other), (*other, *ids[start : start + 3]))
    return Batch(rows, (start, start, 5))


@torch.no_grad()
def _plainly(architecture: Architecture, composition: Composition, batch: Batch) -> list[Tensor]:
    engine = HooksEngine(architecture)
    attachment = engine.attach(composition)
    found: list[Tensor] = [torch.empty(0)] * len(batch.ids)
    try:
        for piece in batch.pieces(1):  # each row by itself: no time goes into padding
            ((row,), (logits,)) = piece.rows or (), engine.forward(piece).logits
            found[row] = token_logprobs(logits, piece.responses()[0])
    finally:
        attachment.remove()
    return found
