"""A bare tensor [d_model] in a `.pt` file, as CAA, EasyEdit2, BiPO and refusal_direction write it.

The file says no layer. CAA, EasyEdit2 and BiPO mean the output of block l; the layer of
refusal_direction is the input of block l, so here l − 1.
"""

from pathlib import Path

from steer.algebra import Vector
from steer.exchange._exchange import imported
from steer.exchange._registry import Format, register_format
from steer.exchange._torch_file import load_tensors, save_tensors


def _write(vector: Vector, path: Path) -> None:
    save_tensors(path, vector.direction(vector.layers[0]).float().cpu())


def _read(path: Path, *, layer: int) -> Vector:
    """Read the direction at a layer, the output of block `layer`."""
    direction = load_tensors(path)
    return imported({layer: direction[0] if direction.shape[:-1] == (1,) else direction})


register_format(
    Format(
        name="tensor",
        what="CAA, EasyEdit2, BiPO, refusal_direction: one layer, which the file does not name",
        suffixes=(".pt", ".pth"),
        write=_write,
        read=_read,
        lowest=-1,
        single=True,
    )
)
