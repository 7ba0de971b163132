"""A feature of a sparse autoencoder of SAELens: one row of `W_dec`, at the layer that it names.

`blocks.8.hook_resid_post` is the output of block 8, `blocks.8.hook_resid_pre` that of block 7.
"""

import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from steer._check import integer
from steer.algebra import Vector
from steer.errors import VectorFileError
from steer.exchange._exchange import imported
from steer.exchange._registry import Format, register_format
from steer.store import _strict_json as strict_json
from steer.store import read_file, readable

_HOOK = re.compile(r"blocks\.(\d{1,6})\.hook_resid_(pre|post)")


def _read(path: Path, *, row: int) -> Vector:
    """Read the direction of the feature `row` from a folder with cfg.json and weights."""
    config: Any = strict_json.loads(
        read_file(path / "cfg.json", VectorFileError, most=2**20).decode()
    )
    said = {**config, **(config.get("metadata") or {})}
    name = said.get("hook_name") or said.get("hook_point")
    match = _HOOK.fullmatch(str(name))
    if match is None or said.get("hook_name_out") not in (None, name):
        raise ValueError(f"an autoencoder at {name}, not of the residual stream")
    file = path / "sae_weights.safetensors"
    try:
        with readable(file, VectorFileError), safe_open(file, framework="pt") as weights:
            rows = weights.get_slice("W_dec")
            row = integer("row", row, least=0, most=rows.get_shape()[0] - 1)
            direction = rows[row]
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    layer = int(match[1]) - (match[2] == "pre")
    return imported({layer: direction}, model=said.get("model_name"), row=row)


register_format(
    Format(
        name="saelens", what="SAELens: a row of W_dec; a folder", read=_read, lowest=-1, single=True
    )
)
