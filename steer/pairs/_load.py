"""From rows to pairs: one shape for the whole source, and every row read or reported."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from steer.errors import PairsError
from steer.pairs._columns import Fields, missing_field, name_fields
from steer.pairs._pair import Pair, about
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


def read_pairs(
    rows: Iterable[Row],
    source: str,
    *,
    domain: str | None,
    shape: str | None,
    columns: Mapping[str, str],
    limit: int | None,
    on_bad: str,
) -> tuple[tuple[Pair, ...], tuple[RejectedRow, ...]]:
    """Return the pairs of rows in their order, up to the limit, and the rejected rows."""
    rejected: list[RejectedRow] = []
    report = rejected if on_bad == "report" else None
    pairs = tuple(islice(_valid_pairs(rows, domain, shape, columns, report), limit))
    if pairs:
        return pairs, tuple(rejected)
    raise PairsError(
        f"{source} holds no valid pair" if rejected else f"{source} holds no rows",
        found=f"{len(rejected)} rows, the first: {rejected[0]}" if rejected else "0 rows",
        expected="at least one pair",
        do="check the source; a pair is a prompt with a chosen and a rejected answer",
    )


def _valid_pairs(
    rows: Iterable[Row],
    domain: str | None,
    forced: str | None,
    columns: Mapping[str, str],
    rejected: list[RejectedRow] | None,
) -> Iterator[Pair]:
    shape = None
    for row in rows:
        fields = None
        try:
            fields = name_fields(row.value, columns)
            row_shape = forced or _same_shape(fields, shape)
            pair = read_pair(fields, row_shape, domain)
        except PairsError as error:
            where = row.where + (fields.note() if fields else "")
            if rejected is None:
                report = '; on_bad="report" leaves such rows out and lists them' if fields else ""
                raise about(where, error, report) from None
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
        "the row has a different shape from the rows before it",
        found=f"{found!r}: {SHAPES[found][1]}",
        expected=f"{shape!r}: {SHAPES[shape][1]}",
        do="write one file per shape, or force one with shape=",
    )
