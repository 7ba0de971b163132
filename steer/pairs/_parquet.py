"""Parquet files, read a few rows at a time and within bounds, as repeated values take no space."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer.pairs._lines import check_unique, empty, may_hold, reading, too_much

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 16  # read at once
_VALUE = 16  # bytes that a value is taken to need beside its text


def read_parquet(path: Path, name: str) -> Iterator[dict[str, object]]:
    """Yield the rows of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.stat().st_size:
        raise empty(name)
    with reading(name, "a Parquet file", pa.ArrowException, OSError):
        with pq.ParquetFile(path) as file:
            columns = map(file.metadata.schema.column, range(file.metadata.num_columns))
            texts = [c.path for c in columns if c.physical_type == "BYTE_ARRAY" and _is_text(c)]
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            check_unique(file.schema_arrow.names, name)
            yield from _rows(file, name, may_hold(path))


def _is_text(column: Any) -> bool:
    return column.logical_type.type in ("STRING", "NONE")


def _rows(file: Any, name: str, most: int) -> Iterator[dict[str, object]]:
    """Yield rows while their size is within bounds, both uncompressed and as Python objects."""
    held = taken = 0
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        columns = [group.column(k) for k in range(group.num_columns)]
        held += sum(c.total_uncompressed_size + _VALUE * c.num_values for c in columns)
        if held > most:
            raise too_much(name, most)
        for batch in file.iter_batches(_ROWS, row_groups=[number]):
            taken += sum(_size(column) for column in batch.columns)
            if taken > most:
                raise too_much(name, most)
            yield from batch.to_pylist()


def _size(array: "pa.Array") -> int:
    """Return the size of an array in bytes with every repeated text counted."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(array, pa.DictionaryArray):
        lengths = pc.binary_length(array.dictionary).take(array.indices)
        return int(pc.sum(lengths).as_py() or 0)
    if isinstance(array, pa.StructArray):
        return sum(_size(child) for child in array.flatten())
    if hasattr(array, "flatten"):
        return _size(array.flatten())
    return int(array.nbytes)
