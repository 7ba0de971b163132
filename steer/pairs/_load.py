"""Rows → pairs: one shape for the whole source, and every row either read or reported."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from steer._check import as_integer
from steer.errors import PairsError
from steer.pairs._columns import Fields, check_columns, missing_field, name_fields
from steer.pairs._pair import Pair, shown
from steer.pairs._read import Row
from steer.pairs._shapes import SHAPES, find_shape, read_pair


@dataclass(frozen=True)
class RejectedRow:
    """A row that is not a valid pair.

    Args:
        where: The source and the row in it.
        what: What is wrong with the row.
        found: What was found there.
    """

    where: str
    what: str
    found: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}, found {self.found}"


@dataclass(frozen=True)
class Request:
    """How rows are to be read; the arguments of ``Pairs.load``, checked."""

    domain: str | None = None
    shape: str | None = None
    columns: Mapping[str, str] | None = None
    limit: int | None = None
    on_bad: str = "error"

    def __post_init__(self) -> None:
        check_columns(self.columns)
        _check_choice("shape", self.shape, (None, *SHAPES))
        _check_choice("on_bad", self.on_bad, ("error", "report"))
        if self.limit is not None and (as_integer(self.limit) or 0) < 1:
            raise PairsError(
                "`limit` is not a number of pairs",
                found=shown(self.limit),
                expected="an int of at least 1, or None",
                do="leave it out to read everything",
            )


def read_pairs(
    rows: Iterable[Row], source: str, request: Request
) -> tuple[tuple[Pair, ...], tuple[RejectedRow, ...]]:
    """Return the pairs of some rows, and the rows that are none."""
    rejected: list[RejectedRow] = []
    good = _valid_pairs(rows, request, rejected)
    limit = None if request.limit is None else min(as_integer(request.limit) or 0, sys.maxsize)
    pairs = tuple(islice(good, limit))
    if pairs:
        return pairs, tuple(rejected)
    raise PairsError(
        f"{source} holds no valid pair" if rejected else f"{source} holds no rows",
        found=f"{len(rejected)} rows, the first: {rejected[0]}" if rejected else "0 rows",
        expected="at least one pair",
        do="look at the source; a pair is a prompt with a chosen and a rejected answer",
    )


def _valid_pairs(
    rows: Iterable[Row], request: Request, rejected: list[RejectedRow]
) -> Iterable[Pair]:
    columns = check_columns(request.columns)
    shape = request.shape
    for row in rows:
        fields = None
        try:
            fields = name_fields(row.value, columns)
            row_shape = request.shape or _same_shape(fields, shape)
            pair = read_pair(fields, row_shape, request.domain)
        except PairsError as error:
            where = row.where + (fields.note() if fields else "")
            if request.on_bad == "error":
                report = '; on_bad="report" leaves such rows out and lists them' if fields else ""
                raise PairsError(
                    f"{where}: {error.what}",
                    found=error.found,
                    expected=error.expected,
                    do=f"{error.do}{report}",
                ) from None
            rejected.append(RejectedRow(where, error.what, str(error.found)))
            continue
        shape = row_shape
        yield pair


def _same_shape(fields: Fields, shape: str | None) -> str:
    """Return the shape of a row, which must be that of the rows before it."""
    found = find_shape(fields)
    if shape in (None, found):
        return found
    if shape in ("text", "messages") and "prompt" not in fields:
        raise missing_field("prompt", fields.columns)
    raise PairsError(
        "the row has another shape than the rows before it",
        found=f"{found!r}: {SHAPES[found].looks}",
        expected=f"{shape!r}: {SHAPES[shape].looks}",
        do="write one file per shape, or force one with shape=",
    )


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise PairsError(
            f"`{name}` is not known",
            found=shown(value),
            expected=f"one of {', '.join(repr(choice) for choice in choices)}",
            do="choose one of them",
        )
