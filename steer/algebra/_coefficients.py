"""Coefficients in every form that a call takes, read as rows of numbers."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import is_number
from steer.algebra._keywords import check_keywords
from steer.errors import CompositionError

_TEXT = (str, bytes, bytearray)
CoefficientsLike = (
    float | Mapping[str, float] | Sequence[float] | Sequence[Mapping[str, float]] | Tensor
)


def given(
    coefficients: CoefficientsLike | None,
    by_domain: Mapping[str, float],
    domains: Sequence[str],
    arguments: Sequence[str] = (),
) -> CoefficientsLike | None:
    """Return the coefficients of a call, by argument or by keyword; None if there are none."""
    check_keywords(by_domain, domains, arguments)
    if coefficients is not None and by_domain:
        raise CompositionError(
            "coefficients given twice",
            found=f"{coefficients!r} and {by_domain}",
            expected="one of both",
            do="use either the argument or keywords",
        )
    return (by_domain or None) if coefficients is None else coefficients


def coefficient_rows(
    value: CoefficientsLike, domains: Sequence[str]
) -> tuple[Float[Tensor, "row domain"], bool]:
    """Return coefficients as rows in float64, and whether there is one row per prompt.

    A tensor may share its memory with the rows; a `Composition` makes its own copy.
    """
    per_row = False
    if not isinstance(value, Tensor | Mapping | Sequence) and hasattr(value, "__array__"):
        value = value.__array__().tolist()  # NumPy's, or of a library that gives one
    if isinstance(value, Mapping):
        rows = torch.tensor([_row(value, domains)], dtype=torch.float64)
    elif is_number(value):
        rows = torch.full((1, len(domains)), number(value), dtype=torch.float64)
    elif isinstance(value, Tensor) and value.ndim in (0, 1, 2) and _of_numbers(value):
        rows = value.detach().cpu().double()
        per_row = value.ndim == 2
        rows = rows.expand(1, len(domains)) if value.ndim == 0 else torch.atleast_2d(rows)
    elif isinstance(value, Sequence) and not isinstance(value, _TEXT) and len(value) > 0:
        per_row = isinstance(value[0], Mapping | Sequence)
        listed = value if per_row else [value]
        rows = torch.tensor([_listed_row(r, domains) for r in listed], dtype=torch.float64)
    else:
        rows = torch.empty(0)
    if not _usable(rows, domains):
        raise _unusable(value, domains)
    return rows, per_row


def _of_numbers(value: Tensor) -> bool:
    """Return whether a tensor is dense, real and not on the meta device."""
    there = value.layout == torch.strided and not value.is_meta
    return there and not value.is_complex() and value.dtype != torch.bool


def _usable(rows: Tensor, domains: Sequence[str]) -> bool:
    right = rows.ndim == 2 and len(rows) > 0 and rows.shape[1] == len(domains)
    return right and bool(torch.isfinite(rows.float()).all())  # what float32 cannot hold is none


def check_coefficients(rows: Tensor, domains: Sequence[str], per_row: bool) -> None:
    """Raise unless rows are finite numbers for the domains, one row unless they are per prompt."""
    right = isinstance(rows, Tensor) and _usable(rows, domains)
    if not right or (len(rows) > 1 and not per_row):
        raise _unusable(rows, domains)


def _unusable(value: object, domains: Sequence[str]) -> CompositionError:
    try:
        found = repr(value)
    except ValueError as error:  # an integer of thousands of digits is not printed
        found = str(error)
    return CompositionError(
        "coefficients that cannot be used",
        found=found if len(found) <= 120 else f"{found[:119]}…",
        expected=f"numbers within float32 (±3.4e38) for {list(domains)}: one, one each, or one "
        "row per prompt",
        do="pass for instance 0.5, {'" + domains[0] + "': 0.5}, or a tensor [batch, domain]",
    )


def _listed_row(row: object, domains: Sequence[str]) -> list[float]:
    if isinstance(row, Mapping):
        return _row(row, domains)
    if isinstance(row, Sequence) and len(row) == len(domains) and not isinstance(row, _TEXT):
        return [number(x) for x in row]
    raise _unusable(row, domains)


def _row(by_domain: Mapping[str, float], domains: Sequence[str]) -> list[float]:
    unknown = [name for name in by_domain if name not in domains]
    if unknown:
        raise CompositionError(
            "unknown domain",
            found=unknown,
            expected=f"among {list(domains)}",
            do="check the spelling, or compose a vector for it",
        )
    return [number(by_domain.get(name, 0.0)) for name in domains]


def number(value: object) -> float:
    """Return a coefficient as a plain float."""
    if isinstance(value, Tensor) and value.ndim == 0 and _of_numbers(value):
        value = value.item()
    if not is_number(value):
        raise CompositionError(
            "a coefficient is no number",
            found=repr(value),
            expected="a float",
            do="pass a number",
        )
    try:
        return float(value)  # type: ignore[arg-type]  # is_number said so
    except OverflowError:
        return float("inf")  # refused with all that is not finite
