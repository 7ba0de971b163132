"""From rows to pairs: one shape for the whole source, and every row read or reported."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from steer._check import integer, one_of
from steer.errors import PairsError
from steer.pairs._columns import FIELDS, Fields, missing_field, name_fields
from steer.pairs._pair import Pair
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
    """How `Pairs.load` reads rows: its arguments, checked."""

    domain: str | None = None
    shape: str | None = None
    columns: Mapping[str, str] | None = None
    limit: int | None = None
    on_bad: str = "error"

    def __post_init__(self) -> None:
        for field in self.columns or {}:
            one_of("a key of columns", field, FIELDS, do='write columns={"prompt": "your name"}')
        one_of("shape", self.shape, (None, *SHAPES), do="leave it out to find it from the rows")
        one_of("on_bad", self.on_bad, ("error", "report"))
        if self.limit is not None:
            limit = integer("limit", self.limit, least=1, do="leave it out to read everything")
            object.__setattr__(self, "limit", min(limit, sys.maxsize))


def read_pairs(
    rows: Iterable[Row], source: str, request: Request
) -> tuple[tuple[Pair, ...], tuple[RejectedRow, ...]]:
    """Return the pairs of rows in their order, up to the limit, and the rows that are no pairs."""
    rejected: list[RejectedRow] = []
    pairs = tuple(islice(_valid_pairs(rows, request, rejected), request.limit))
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
    columns = dict(request.columns or {})
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
    """Return the shape of a row, or raise if it differs from that of the rows before it."""
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
