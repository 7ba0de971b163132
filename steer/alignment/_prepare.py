"""A difference that can be taken: both sides opened, compared, and nothing read yet."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from steer.algebra import Dense, LowRank, Provenance, Site, Term, Vector, Weight
from steer.alignment._adapter import adapter_terms
from steer.alignment._check import check_buffers, check_same_kind, check_same_shape, included
from steer.alignment._factors import Target, reduced
from steer.alignment._source import ModelLike, Source, adapter_folder, opened
from steer.alignment._subtract import subtract
from steer.alignment._table import TensorRow, TensorTable
from steer.errors import AlignmentError
from steer.model import Model
from steer.network._compatibility import refuse_or_warn, text_differences
from steer.network._fingerprint import text_marks, tokenizer_in


@dataclass(frozen=True, eq=False, slots=True)
class Prepared:
    """A difference that can be taken.

    Args:
        shapes: Shape of each parameter that may differ, in the order of the file.
        term: Parameter → its difference; None if it has none.
        target: How far matrices are reduced, if at all.
        dtype: Precision of the result.
        provenance: How the vector is made.
        adapter: Whether it is that of an adapter.
    """

    shapes: dict[str, tuple[int, ...]]
    term: Callable[[str], Term | None]
    target: Target | None
    dtype: torch.dtype
    provenance: Provenance
    adapter: bool

    def terms(self, *, progress: bool) -> Iterator[tuple[Site, Term, TensorRow]]:
        """Yield the parameters that differ, each in its form, one in memory at a time."""
        from tqdm.auto import tqdm

        some = False
        hidden = None if progress else True  # None: hidden where the output is no terminal
        for name in tqdm(self.shapes, desc="difference", unit="tensor", disable=hidden):
            taken = self._taken(name)
            if taken is not None:
                some = True
                yield taken
            del taken  # or it would stand beside the next one
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
        """Return a vector without numbers, at least as large as the one that comes."""
        terms: dict[Site, Term] = {}
        for name, shape in self.shapes.items():
            factored = len(shape) == 2 and (self.target is not None or self.adapter)
            if factored:
                rank = (self.target and self.target.rank) or max(shape)
                B, A = self._empty(shape[0], rank), self._empty(rank, shape[1])
                terms[Weight(name)] = LowRank(B, A)
            else:
                terms[Weight(name)] = Dense(self._empty(*shape))
        return Vector(terms, self.record([TensorRow("", (), None, 1.0, 0.123456, 0.123456)]))

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.dtype, device="meta")

    def record(self, rows: Sequence[TensorRow]) -> Provenance:
        """Return the provenance, with what the form kept."""
        if self.target is None:
            return self.provenance
        table = TensorTable(tuple(rows))
        kept = {"kept_energy": round(table.energy, 6), "error": round(table.error, 6)}
        return replace(self.provenance, arguments={**self.provenance.arguments, **kept})


def prepared(
    base: ModelLike,
    aligned: ModelLike,
    rank: int | None,
    energy: float | None,
    domain: str | None,
    include: Sequence[str] | None,
    dtype: torch.dtype | None,
    strict: bool,
) -> Prepared:
    """Return a difference that can be taken, after all that can be checked without reading it.

    Args:
        base: As in `alignment_vector`.
        aligned: As in `alignment_vector`.
        rank: As in `alignment_vector`.
        energy: As in `alignment_vector`.
        domain: As in `alignment_vector`.
        include: As in `alignment_vector`.
        dtype: As in `alignment_vector`.
        strict: As in `alignment_vector`.

    Raises:
        CheckpointError: A checkpoint cannot be read.
        AlignmentError: The models do not fit each other.
    """
    target = None if rank is None and energy is None else Target(rank, energy)
    source = _base(base)
    names = included(source, include)
    folder = adapter_folder(aligned)
    if folder is None:
        other = opened(aligned)
        label, term = other.label, _of_models(source, other, include, strict)
    else:
        label = str(aligned)
        names, term = _of_adapter(source, folder, names, strict)
    options = {"rank": rank, "energy": energy, "include": None if include is None else [*include]}
    return Prepared(
        shapes={n: source.parameters.shapes[n] for n in sorted(names, key=lambda n: f"{n}.W")},
        term=term,
        target=target,
        dtype=torch.float32 if dtype is None else dtype,
        provenance=Provenance(
            method="alignment_vector",
            arguments={**_labels((base, source.label), (aligned, label)), **options},
            domain=domain,
            model=source.info,
            version=_version(),
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
    check_same_shape(base, aligned, include)
    check_same_kind(base, aligned, strict=strict)
    check_buffers(base, aligned)

    def term(name: str) -> Term | None:
        return subtract(name, aligned.parameters.read(name), base.parameters.read(name))

    return term


def _labels(base: tuple[ModelLike, str], aligned: tuple[ModelLike, str]) -> dict[str, str]:
    """Return what both models are called; of two by one name, which was changed in memory."""
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


def _version() -> str:
    from steer import __version__

    return __version__
