"""Many parameters at a glance: norm and energy by kind of module and by layer, then the largest."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steer.algebra._term import LowRank, Term, inner, tensors
from steer.show import Bar, Bars, Table
from steer.show._card import Block, Cells

_ALL = 12  # parameters up to which all are listed
_LARGEST = 6
_KINDS = 16
_FOLDED = 400  # rows that are folded up in HTML
_ROW = 1024  # numbers whose squares float32 adds up to 1e-9 of the norm
_MANY = 2**20
_SAFE = (1e-15, 1e15)


@dataclass(frozen=True, slots=True)
class Weighed:
    """One parameter of a vector."""

    name: str
    shape: tuple[int, ...]
    form: str
    norm: float | None
    more: tuple[str, ...] = ()

    @property
    def size(self) -> float:
        """The norm; NaN if it was not taken."""
        return math.nan if self.norm is None else self.norm

    @property
    def layer(self) -> int | None:
        """The first number in its name, which counts the blocks; None without one."""
        found = next((part for part in self.name.split(".") if part.isdecimal()), None)
        return None if found is None else int(found[:9])

    @property
    def kind(self) -> str:
        """What parameters of all blocks and experts have in common in their names."""
        parts = self.name.removesuffix(".weight").split(".")
        first = next((k for k, part in enumerate(parts) if part.isdecimal()), None)
        rest = parts if first is None else parts[first + 1 :] or parts
        return ".".join("*" if part.isdecimal() else part for part in rest)


def norm_of(term: Term) -> float:
    """Return the norm of a term in float64, without forming a product; NaN if it has no values."""
    if any(tensor.is_meta for tensor in tensors(term).values()):
        return math.nan
    if isinstance(term, LowRank):
        squares = inner(term, term)
        return math.sqrt(squares) if squares > 0 else 0.0 if squares <= 0 else math.nan
    (values,) = tensors(term).values()
    return _length(values.detach().reshape(-1))


def _length(values: Tensor) -> float:
    """Return the norm of numbers: of many, that of rows in float32, added up in float64."""
    whole = values.numel() - values.numel() % _ROW
    if whole >= _MANY and values.dtype != torch.float64:
        parts = values[:whole].view(-1, _ROW).split(_MANY // _ROW)
        rows = [torch.linalg.vector_norm(part.float(), dim=1).double() for part in parts]
        found = math.hypot(*(float(row.norm()) for row in rows), _length(values[whole:]))
        if _SAFE[0] < found < _SAFE[1]:  # else a square may have left the range of float32
            return found
    return float(torch.linalg.vector_norm(values.double()))


def cost_of(term: Term) -> int:
    """Return about how many numbers are gone through to take the norm of a term."""
    return numbers_in(term) * (term.rank if isinstance(term, LowRank) else 1)


def numbers_in(term: Term) -> int:
    """Return how many numbers a term is held in."""
    return sum(tensor.numel() for tensor in tensors(term).values())


def weighed_table(rows: Sequence[Weighed], more: tuple[str, ...] = ()) -> Table:
    """Return a table of parameters: all of a few, the largest of many, the rest folded up."""
    known = any(row.norm is not None for row in rows)
    head = ("weight", "term", "shape", *(["norm"] if known else []), *more)
    if len(rows) <= _ALL:
        return Table(head, tuple(map(_row, rows)), words=2)
    order = sorted(rows, key=lambda row: -row.size if row.size == row.size else 0.0)
    largest = order[:_LARGEST]
    names = {row.name for row in largest}
    rest = [row for row in rows if row.name not in names]
    what = "the largest" if known else "the first"
    return Table(
        head,
        tuple(map(_row, largest)),
        words=2,
        rest=tuple(map(_row, rest[:_FOLDED])),
        left_out=max(len(rest) - _FOLDED, 0),
        caption=f"{what} {len(largest)} of {len(rows)}",
    )


def kinds_of(rows: Sequence[Weighed]) -> list[Block]:
    """Return where the energy of many parameters lies: by layer as bars, by kind as a table.

    Where norms were not taken, the table counts the numbers of each kind.
    """
    if len(rows) <= _ALL:
        return []
    kinds: dict[str, list[Weighed]] = {}
    layers: dict[int, list[Weighed]] = {}
    for row in rows:
        kinds.setdefault(row.kind, []).append(row)
        if row.layer is not None:
            layers.setdefault(row.layer, []).append(row)
    taken = all(row.norm is not None for row in rows)
    size = _norm if taken else _numbers
    sizes = {kind: size(found) for kind, found in kinds.items()}
    named = sorted(kinds, key=lambda kind: -sizes[kind] if sizes[kind] == sizes[kind] else 0.0)
    shown, left = named[:_KINDS], max(len(named) - _KINDS, 0)
    if not taken:
        counts = tuple((kind, f"{sizes[kind]:,}", str(len(kinds[kind]))) for kind in shown)
        return [Table(("kind", "parameters", "weights"), counts, words=1, left_out=left)]
    total = _norm(rows)
    cells: list[Cells] = []
    for kind in shown:
        share = _share(sizes[kind], total)
        said = "–" if math.isnan(share) else f"{share:.1%}"
        cells.append(
            (kind, Bar(share, 0.0, 1.0), said, f"{sizes[kind]:.4g}", str(len(kinds[kind])))
        )
    head = ("kind", "energy", "share", "norm", "weights")
    labels = tuple(map(str, sorted(layers)))
    by_layer = tuple(_norm(layers[layer]) for layer in sorted(layers))
    return [
        Bars("norm by layer", labels, by_layer),
        Table(head, tuple(cells), words=2, left_out=left),
    ]


def _share(norm: float, total: float) -> float:
    return (norm / total) ** 2 if total > 0 and math.isfinite(total) else math.nan


def _norm(rows: Iterable[Weighed]) -> float:
    return math.hypot(*(row.size for row in rows))


def _numbers(rows: Iterable[Weighed]) -> int:
    return sum(math.prod(row.shape) for row in rows)


def _row(row: Weighed) -> Cells:
    shape = "×".join(map(str, row.shape)) or "scalar"
    norm = [] if row.norm is None else [f"{row.norm:.4g}"]
    return (row.name, row.form, shape, *norm, *row.more)
