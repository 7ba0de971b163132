"""Recording forwards without packing: sequences of similar length side by side, padded right.

This works for every causal language model. Padding stands after the last token of a sequence, is
masked, and is never read.
"""

from collections.abc import Sequence

import torch

from steer.engine._reading import Averager, Means, Place, device_of, run_blocks
from steer.network import Architecture


def read_padded(
    architecture: Architecture,
    sequences: Sequence[Sequence[int]],
    places: Sequence[Place],
    layers: Sequence[int],
    *,
    max_tokens: int,
) -> Means:
    """Average the residual stream at some places in forwards over padded batches."""
    wanted = {place.sequence for place in places}
    order = sorted(wanted, key=lambda index: -len(sequences[index]))
    shape = (len(places), len(layers))
    residual = torch.empty(*shape, architecture.d_model, dtype=torch.float64)
    norm = torch.empty(*shape, dtype=torch.float64)
    while order:
        size = max(1, max_tokens // len(sequences[order[0]]))
        batch, order = order[:size], order[size:]
        slots = {sequence: row for row, sequence in enumerate(batch)}
        found = [p for p, place in enumerate(places) if place.sequence in slots]
        here = [Place(slots[places[p].sequence], places[p].tokens) for p in found]
        means = _read_batch(architecture, [sequences[index] for index in batch], here, layers)
        residual[found], norm[found] = means.residual, means.norm
    return Means(residual, norm)


def _read_batch(
    architecture: Architecture,
    sequences: Sequence[Sequence[int]],
    places: Sequence[Place],
    layers: Sequence[int],
) -> Means:
    device = device_of(architecture)
    width = max(map(len, sequences))
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    rows = [[place.sequence * width + token for token in place.tokens] for place in places]
    averager = Averager(rows, len(layers), architecture.d_model, device)
    inputs = {"input_ids": ids.to(device)}
    if not bool(mask.all()):
        inputs["attention_mask"] = mask.to(device)
    run_blocks(architecture, layers, inputs, averager.read)
    return averager.means()
