"""The units of a plan, as replacements of their modules' forwards."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import nn

from steer.algebra import LowRank
from steer.algebra._term import dense
from steer.engine._patches import Uncopied
from steer.engine._weights.linear import Factors, LowRankForward, Product
from steer.engine._weights.plan import Unit
from steer.engine._weights.strength import Columns, Strengths
from steer.engine._weights.values import LookupForward, ScaledForward

Patch = Callable[[Callable[..., Any]], Uncopied]


def patches(units: Sequence[Unit], strengths: Strengths) -> list[tuple[nn.Module, Patch]]:
    """Return for each unit its module and what makes the new forward of the present one."""
    return [*_linear(units, strengths), *(_value(unit, strengths) for unit in _values(units))]


def _values(units: Sequence[Unit]) -> list[Unit]:
    return [unit for unit in units if unit.form not in ("linear", "transposed")]


def _value(unit: Unit, strengths: Strengths) -> tuple[nn.Module, Patch]:
    terms = [entry.term for entry in unit.entries]
    columns = [entry.column for entry in unit.entries]

    def patch(forward: Callable[..., Any]) -> Uncopied:
        if unit.form == "lookup":
            return LookupForward(forward, unit.module, unit.leaf, terms, columns, strengths)
        deltas, constant = [dense(term) for term in terms], unit.form == "added"
        place = (unit.module, unit.leaf)
        return ScaledForward(forward, *place, deltas, columns, strengths, constant, unit.position)

    return unit.module, patch


def _linear(units: Sequence[Unit], strengths: Strengths) -> Iterator[tuple[nn.Module, Patch]]:
    readers: dict[int, list[Factors]] = {}
    for unit in units:
        if unit.form in ("linear", "transposed"):
            readers.setdefault(unit.reader, []).append(_factors(unit))
    known: dict[tuple[int, ...], Columns] = {}
    for members in readers.values():
        of = tuple(
            k
            for m in members
            for k, B in zip(m.columns, m.B, strict=True)
            for _ in range(B.shape[1])
        )
        product = Product(members, known.setdefault(of, Columns(of)), strengths)
        for index, member in enumerate(members):
            yield member.module, _low_rank(member, product, index, strengths)


def _low_rank(factors: Factors, product: Product, index: int, strengths: Strengths) -> Patch:
    def patch(forward: Callable[..., Any]) -> Uncopied:
        return LowRankForward(forward, factors, product, index, strengths)

    return patch


def _factors(unit: Unit) -> Factors:
    """Return a unit's factors as they multiply its input: those of x W are the other way round."""
    low = [entry.term for entry in unit.entries if isinstance(entry.term, LowRank)]
    if unit.form == "transposed":
        A, B = tuple(term.B.mT for term in low), tuple(term.A.mT for term in low)
    else:
        A, B = tuple(term.A for term in low), tuple(term.B for term in low)
    return Factors(unit.module, A, B, tuple(entry.column for entry in unit.entries))
