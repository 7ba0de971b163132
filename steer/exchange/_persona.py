"""Stacks of persona vectors, [layer + 1, d_model]: row j is `hidden_states[j]`.

Row j is thus the output of block j − 1. Row 0 is the embedding output, and the last row was read
after the final norm, so that it is no direction at the output of the last block: both are dropped
when a file is read, and zero in one that is written. A row of zeros is a layer that is not steered.
"""

from pathlib import Path

import torch

from steer._check import integer
from steer.algebra import Vector
from steer.errors import ArgumentError
from steer.exchange._exchange import imported
from steer.exchange._registry import Format, register_format
from steer.exchange._torch_file import load_tensors, save_tensors

_MOST = 2**12  # layers


def _write(vector: Vector, path: Path, *, n_layers: int | None = None) -> None:
    """Write a stack for a model of `n_layers` blocks, by default that of the vector's model."""
    model = vector.provenance.model
    n_layers = model.n_layers if n_layers is None and model is not None else n_layers
    if n_layers is not None:
        n_layers = integer("n_layers", n_layers, least=1, most=_MOST)
    else:
        raise ArgumentError(
            "the vector does not know how many layers its model has",
            found="a vector without a model",
            expected="n_layers, the number of blocks",
            do="pass n_layers=…",
        )
    if vector.layers[-1] > n_layers - 2:
        raise FORMAT.refused(
            f"a direction at layer {vector.layers[-1]} of {n_layers}",
            f"layers up to {n_layers - 2}: the last row stands for the final norm's output",
            f"leave it out: vector[: {n_layers - 1}]",
        )
    rows = torch.zeros(n_layers + 1, vector.d_model or 0)
    for layer in vector.layers:
        rows[layer + 1] = vector.direction(layer)
    save_tensors(path, rows)


def _read(path: Path) -> Vector:
    rows = load_tensors(path)
    if rows.ndim != 2:
        raise ValueError(f"a tensor of shape {tuple(rows.shape)}, not [layer + 1, d_model]")
    return imported({j - 1: rows[j] for j in range(1, len(rows) - 1) if rows[j].any()})


FORMAT = register_format(
    Format(
        name="persona",
        what="persona_vectors: a row for each of hidden_states",
        suffixes=(".pt",),
        write=_write,
        read=_read,
    )
)
