"""The difference of two models, tensor by tensor, as a vector or straight into a file."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from steer._check import as_list
from steer._progress import progress_bar
from steer.algebra import (
    Dense,
    LowRank,
    Provenance,
    Site,
    Term,
    Vector,
    VectorWriter,
    Weight,
)
from steer.alignment._adapter import adapter_terms
from steer.alignment._factors import Target, reduced
from steer.alignment._source import (
    ModelLike,
    Source,
    adapter_folder,
    check_comparable,
    included,
    opened,
    subtract,
)
from steer.alignment._table import TensorRow, TensorTable
from steer.errors import AlignmentError
from steer.model import Model
from steer.network._compatibility import refuse_or_warn, text_differences
from steer.network._fingerprint import text_marks, tokenizer_in


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

    Checkpoints are read tensor by tensor and never loaded. A LoRA adapter is read from its
    factors; its configuration is read by PEFT, which must be installed. Tied weights count once,
    parameters that do not differ are omitted, and buffers are not part of the vector. Differences
    are taken in float32, which is exact for bfloat16 and float16 weights before and after training.
    Source: arXiv 2410.19206.

    Args:
        base: Folder or Hub id, `Checkpoint`, `Model`, or module in memory.
        aligned: Likewise, or folder or id of a LoRA adapter of the base model.
        rank: Reduce every matrix to this rank as it passes; see `low_rank`.
        energy: Instead of a rank, the share of ‖ΔW‖² that each matrix must keep.
        domain: The domain that the model was aligned in.
        include: Shell patterns of parameter names; others are neither compared nor taken.
        dtype: Precision of the result; None for float32. bfloat16 halves the size and rounds.
        strict: Whether a different configuration, tokenizer or chat template is an error; otherwise
            it is a warning.
        progress: Whether to show a progress bar, if the output is a terminal.

    Returns:
        A vector of weight sites: at coefficient 1 it gives the aligned model.

    Raises:
        ArgumentError: A rank or an energy out of range, or both; `include` that is one text.
        CheckpointError: A checkpoint cannot be read.
        AlignmentError: The models do not fit each other, do not differ, or hold NaN.
        MissingExtraError: An adapter is given, and PEFT is not installed.
    """
    difference = _prepared(base, aligned, rank, energy, domain, include, dtype, strict)
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
    """Write the vector of `alignment_vector` to a file without holding it in memory.

    Memory stays at a few tensors, whatever the size of the models.

    Args:
        base: See `alignment_vector`.
        aligned: See `alignment_vector`.
        out: The file; it appears under its name once it is complete.
        rank: See `alignment_vector`.
        energy: See `alignment_vector`.
        domain: See `alignment_vector`.
        include: See `alignment_vector`.
        dtype: See `alignment_vector`.
        strict: See `alignment_vector`.
        progress: See `alignment_vector`.

    Returns:
        Form, norm, kept energy and error of each tensor.

    Raises:
        ArgumentError: See `alignment_vector`.
        CheckpointError: See `alignment_vector`.
        AlignmentError: See `alignment_vector`.
        MissingExtraError: See `alignment_vector`.
        VectorFileError: The file cannot be written.
    """
    difference = _prepared(base, aligned, rank, energy, domain, include, dtype, strict)
    rows = []
    with VectorWriter(out, difference.skeleton()) as writer:
        for site, term, row in difference.terms(progress=progress):
            writer.add(site, term)
            del term
            rows.append(row)
        writer.finish(difference.record(rows))
    return TensorTable(tuple(rows))


@dataclass(frozen=True, eq=False, slots=True)
class _Difference:
    """A difference that is checked and not yet read: `term` reads that of one parameter.

    `shapes` are those of the parameters that may differ, in the order of the file.
    """

    shapes: dict[str, tuple[int, ...]]
    term: Callable[[str], Term | None]
    target: Target | None
    dtype: torch.dtype
    provenance: Provenance
    adapter: bool

    def terms(self, *, progress: bool) -> Iterator[tuple[Site, Term, TensorRow]]:
        """Yield the parameters that differ, each in its form, one in memory at a time."""
        some = False
        for name in progress_bar(self.shapes, progress=progress, desc="difference", unit="tensor"):
            taken = self._taken(name)
            if taken is not None:
                some = True
                yield taken
            del taken  # otherwise it stays in memory beside the next one
        if not some:
            raise AlignmentError(
                "the two models are the same",
                found=f"no difference in {len(self.shapes)} parameters",
                expected="at least one parameter that differs",
                do="check that the second model is the aligned one",
            )

    def _taken(self, name: str) -> tuple[Site, Term, TensorRow] | None:
        raw = self.term(name)
        if raw is None:
            return None
        return Weight(name), *reduced(name, raw, self.target, self.dtype)

    def skeleton(self) -> Vector:
        """Return a vector on the meta device, at least as large as the difference."""
        empty = partial(torch.empty, dtype=self.dtype, device="meta")
        terms: dict[Site, Term] = {}
        for name, shape in self.shapes.items():
            factored = len(shape) == 2 and (self.target is not None or self.adapter)
            if factored:
                rank = (self.target and self.target.rank) or max(shape)
                terms[Weight(name)] = LowRank(empty(shape[0], rank), empty(rank, shape[1]))
            else:
                terms[Weight(name)] = Dense(empty(*shape))
        return Vector(terms, self.record([TensorRow("", (), None, 1.0, 0.123456, 0.123456)]))

    def record(self, rows: Sequence[TensorRow]) -> Provenance:
        """Return the provenance with the energy kept and the error of the form."""
        if self.target is None:
            return self.provenance
        table = TensorTable(tuple(rows))
        kept = {"kept_energy": round(table.energy, 6), "error": round(table.error, 6)}
        return replace(self.provenance, arguments={**self.provenance.arguments, **kept})


def _prepared(
    base: ModelLike,
    aligned: ModelLike,
    rank: int | None,
    energy: float | None,
    domain: str | None,
    include: Sequence[str] | None,
    dtype: torch.dtype | None,
    strict: bool,
) -> _Difference:
    """Return the difference of two models after every check that needs no weights."""
    from steer import __version__

    target = None if rank is None and energy is None else Target(rank, energy)
    include = None if include is None else as_list("include", include)
    source = _base(base)
    names = included(source, include)
    folder = adapter_folder(aligned)
    if folder is None:
        other = opened(aligned)
        label, term = other.label, _of_models(source, other, include, strict)
    else:
        label = str(aligned)
        names, term = _of_adapter(source, folder, names, strict)
    options = {"rank": rank, "energy": energy, "include": include}
    return _Difference(
        shapes={n: source.parameters.shapes[n] for n in sorted(names, key=lambda n: f"{n}.W")},
        term=term,
        target=target,
        dtype=torch.float32 if dtype is None else dtype,
        provenance=Provenance(
            method="alignment_vector",
            arguments={**_labels((base, source.label), (aligned, label)), **options},
            domain=domain,
            model=source.info,
            version=__version__,
        ),
        adapter=folder is not None,
    )


def _base(base: ModelLike) -> Source:
    if adapter_folder(base) is not None:
        raise AlignmentError(
            "the base is an adapter",
            found=base,
            expected="the model that the adapter was trained on",
            do="pass the base model first, the adapter second",
        )
    return opened(base)


def _of_models(
    base: Source, aligned: Source, include: Sequence[str] | None, strict: bool
) -> Callable[[str], Term | None]:
    check_comparable(base, aligned, include, strict=strict)

    def term(name: str) -> Term | None:
        return subtract(name, aligned.parameters.read(name), base.parameters.read(name))

    return term


def _labels(base: tuple[ModelLike, str], aligned: tuple[ModelLike, str]) -> dict[str, str]:
    """Return the names of both models; of two with one name, the one in memory was changed."""
    labels = {"base": base[1], "aligned": aligned[1]}
    if base[1] == aligned[1]:
        changed = "aligned" if isinstance(aligned[0], Model | nn.Module) else "base"
        labels[changed] += ", changed in memory"
    return labels


def _of_adapter(
    base: Source, folder: Path, names: Sequence[str], strict: bool
) -> tuple[tuple[str, ...], Callable[[str], Term | None]]:
    differing = text_differences(base.marks, text_marks(tokenizer_in(folder)))
    refuse_or_warn(base.label, str(folder), differing, AlignmentError, strict=strict)
    makers = adapter_terms(folder, base)
    return tuple(name for name in names if name in makers), lambda name: makers[name]()
