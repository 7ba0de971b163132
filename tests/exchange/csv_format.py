"""An exchange format from outside the package: rows `layer,value,value,…` of a `.csv` file."""

from pathlib import Path

import torch

from steer.algebra import Vector
from steer.errors import VectorFileError
from steer.exchange import Format, register_format
from steer.store import read_file, write_text


def _write(vector: Vector, path: Path) -> None:
    lines = [
        ",".join(map(str, [layer, *vector.direction(layer).tolist()])) for layer in vector.layers
    ]
    write_text(path, "\n".join([*lines, "end"]), VectorFileError)


def _read(path: Path) -> Vector:
    *lines, end = read_file(path, VectorFileError, most=2**20).decode().split("\n")
    if end != "end":
        raise ValueError("a file that is cut")
    rows = [line.split(",") for line in lines]
    return Vector.of({int(n): torch.tensor([float(v) for v in values]) for n, *values in rows})


register_format(
    Format(name="csv", what="spreadsheets", suffixes=(".csv",), write=_write, read=_read)
)
