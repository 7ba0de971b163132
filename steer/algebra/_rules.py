"""Checks of the terms of a vector, and of the operands of its algebra."""

import math
from collections.abc import Iterable, Mapping, Sequence

from steer._check import as_integer
from steer.algebra._site import Residual, Site, Weight
from steer.algebra._term import Dense, Direction, LowRank, Term
from steer.errors import AlgebraError

_KINDS = {(Residual, Direction), (Weight, LowRank), (Weight, Dense)}


def check_terms(terms: Mapping[Site, Term]) -> None:
    """Raise unless the terms form a vector."""
    if not terms:
        raise AlgebraError(
            "a vector needs at least one site",
            found="no terms",
            expected="a map from sites to terms",
            do="multiply a vector by 0 to get the zero vector of its space",
        )
    widths: set[int] = set()
    for site, term in terms.items():
        if (type(site), type(term)) not in _KINDS:
            raise AlgebraError(
                "a term stands at a site of the wrong kind",
                found=f"{type(term).__name__} at {site}",
                expected="Direction at residual sites, LowRank or Dense at weight sites",
                do="check the site's name; Vector.of({layer: tensor}) builds a residual vector",
            )
        if isinstance(term, Direction):
            widths.add(term.v.shape[0])
    if len(widths) > 1:
        raise AlgebraError(
            "directions of unequal width in one vector",
            found=f"widths {sorted(widths)}",
            expected="one d_model",
            do="keep vectors of different models apart",
        )


def factor_of(number: float, *, inverse: bool = False) -> float:
    """Return the finite factor of a multiplication or division as a float."""
    try:
        factor = 1.0 / float(number) if inverse else float(number)
    except (OverflowError, ZeroDivisionError):
        factor = math.inf
    if not math.isfinite(factor):
        raise AlgebraError(
            "a vector needs a finite factor",
            found=f"{'division' if inverse else 'multiplication'} by {repr(number)[:40]}",
            expected="a finite number, and none that is divided by 0",
            do="look where the number comes from",
        )
    return factor


def check_one_kind(*sites: Iterable[Site]) -> None:
    """Raise if the operands mix residual and weight sites."""
    if len({type(site) for operand in sites for site in operand}) > 1:
        raise AlgebraError(
            "residual and weight sites have different units",
            found="a mixture of both",
            expected="one kind",
            do="take .residual or .weight first",
        )


def check_bounds(key: slice, layers: Sequence[int]) -> None:
    """Raise for a slice with a negative bound: layer -1 is the embedding output, not the last."""
    ends = [0 if end is None else as_integer(end) for end in (key.start, key.stop)]
    step = 1 if key.step is None else as_integer(key.step)
    if step is not None and step > 0 and all(end is not None and end >= 0 for end in ends):
        return
    raise AlgebraError(
        "a range of layers cannot be read",
        found=f"{key.start}:{key.stop}:{key.step}",
        expected="bounds from 0 and a positive step; -1 is the embedding output",
        do=f"for the last layers write vector[{max(layers, default=0)}:], for the embedding output "
        "vector[-1]",
    )


def no_site(what: str, sites: Iterable[Site]) -> AlgebraError:
    """Return the error for a site that a vector lacks."""
    names = [str(site) for site in sites]
    return AlgebraError(
        "the vector has no such site",
        found=what,
        expected=f"one of {', '.join(names[:8])}" + (" …" if len(names) > 8 else ""),
        do="look at vector.sites",
    )
