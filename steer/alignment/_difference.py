"""Taking the difference: tensor by tensor, into a vector or straight into a file."""

import os
from collections.abc import Sequence

import torch

from steer.algebra import Vector, VectorWriter
from steer.alignment._prepare import prepared
from steer.alignment._source import ModelLike
from steer.alignment._table import TensorTable


def alignment_vector(
    base: ModelLike,
    aligned: ModelLike,
    *,
    rank: int | None = None,
    energy: float | None = None,
    domain: str | None = None,
    include: Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
    strict: bool = True,
    progress: bool = True,
) -> Vector:
    """Return θ_aligned − θ_base, the direction from a model to its aligned sibling.

    Checkpoints are read tensor by tensor and never loaded. An adapter (PEFT LoRA) is taken from
    its factors. Tied weights count once; parameters that do not differ are left out; integer
    buffers and those computed from the configuration are no part of it. Differences are taken in
    float32 (see `subtract` for where that is exact). Source: arXiv 2410.19206.

    Args:
        base: Folder or Hub id, `Checkpoint`, `Model`, or module in memory.
        aligned: Likewise, or folder or id of a LoRA adapter of the base model.
        rank: Reduce every matrix to this rank as it passes; see `low_rank`.
        energy: In place of a rank, the share of ‖ΔW‖² that each matrix must keep.
        domain: The domain the model was aligned in.
        include: Shell patterns of parameter names; others are neither compared nor taken.
        dtype: Precision of the result; None for float32. bfloat16 halves the size and rounds.
        strict: Whether another configuration, tokenizer or chat template is refused; if not, it is
            warned of.
        progress: Whether to show a bar, if the output is a terminal.

    Returns:
        A vector of weight sites: at coefficient 1 it gives the aligned model.

    Raises:
        CheckpointError: A checkpoint cannot be read.
        AlignmentError: The models do not fit each other, do not differ, or hold NaN.
    """
    difference = prepared(base, aligned, rank, energy, domain, include, dtype, strict)
    taken = list(difference.terms(progress=progress))
    terms = {site: term for site, term, _ in taken}
    return Vector(terms, difference.record([row for *_, row in taken]))


def write_alignment_vector(
    base: ModelLike,
    aligned: ModelLike,
    out: str | os.PathLike[str],
    *,
    rank: int | None = None,
    energy: float | None = None,
    domain: str | None = None,
    include: Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
    strict: bool = True,
    progress: bool = True,
) -> TensorTable:
    """Write the vector that `alignment_vector` returns to a file, without ever holding it.

    Memory stays at a few tensors, whatever the size of the models.

    Args:
        base: See `alignment_vector`.
        aligned: See `alignment_vector`.
        out: The file; it appears under its name when it is complete.
        rank: See `alignment_vector`.
        energy: See `alignment_vector`.
        domain: See `alignment_vector`.
        include: See `alignment_vector`.
        dtype: See `alignment_vector`.
        strict: See `alignment_vector`.
        progress: See `alignment_vector`.

    Returns:
        What was written for each tensor: form, norm, energy kept, error.

    Raises:
        CheckpointError: See `alignment_vector`.
        AlignmentError: See `alignment_vector`.
        VectorFileError: The file cannot be written.
    """
    difference = prepared(base, aligned, rank, energy, domain, include, dtype, strict)
    rows = []
    with VectorWriter(out, difference.skeleton()) as writer:
        for site, term, row in difference.terms(progress=progress):
            writer.add(site, term)
            del term
            rows.append(row)
        writer.finish(difference.record(rows))
    return TensorTable(tuple(rows))
