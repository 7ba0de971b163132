"""Steering vectors of vllm-lens, as JSON: what a request carries.

`apply_steering_vectors` takes a list of such documents. Values are float32, base64 without
compression, which vllm-lens reads; it writes them as zstd.
"""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steer._check import need
from steer.algebra import Vector
from steer.errors import VectorFileError
from steer.exchange._exchange import imported
from steer.exchange._registry import Format, register_format
from steer.store import _strict_json as strict_json
from steer.store import read_file, write_text

_LONGEST = 2**27  # bytes of a file, and of its values unpacked
_TYPES = {"float32": "<f4", "float64": "<f8", "float16": "<f2"}


def _write(vector: Vector, path: Path) -> None:
    rows = torch.stack([vector.direction(layer).float().cpu() for layer in vector.layers])
    values = {
        "data": base64.b64encode(rows.numpy().tobytes()).decode(),
        "dtype": "float32",
        "original_dtype": "torch.float32",
        "shape": list(rows.shape),
    }
    document = {
        "activations": values,
        "layer_indices": list(vector.layers),
        "scale": vector.tuning.coefficient if vector.tuning else 1.0,
        "norm_match": False,
        "position_indices": None,
    }
    write_text(path, json.dumps(document), VectorFileError)


def _read(path: Path) -> Vector:
    document: Any = strict_json.loads(read_file(path, VectorFileError, most=_LONGEST).decode())
    if document.get("norm_match") or document.get("position_indices") is not None:
        raise ValueError("norm_match or position_indices: more than a direction at every token")
    rows = _rows(document["activations"])
    layers = document["layer_indices"]
    if rows.ndim != 2 or len(set(layers)) != len(rows):
        raise ValueError(f"activations {tuple(rows.shape)} for the layers {layers}")
    found = dict(zip(layers, rows, strict=True))
    return imported(found, coefficient=float(document.get("scale", 1.0)))


def _rows(values: Any) -> Tensor:
    data = base64.b64decode(values["data"], validate=True)
    compression = values.get("compression")
    if compression not in (None, "none", "zstd"):
        raise ValueError(f"the compression {compression!r}")
    if compression == "zstd":
        need("reading compressed activations", "zstandard")
        from zstandard import ZstdDecompressor, ZstdError

        try:
            data = ZstdDecompressor().stream_reader(data).read(_LONGEST)
        except ZstdError as error:
            raise ValueError(str(error)) from error
    if values.get("original_dtype") == "torch.bfloat16" and values["dtype"] not in _TYPES:
        rows = torch.from_numpy(np.frombuffer(data, "<i2").copy()).view(torch.bfloat16)
    else:
        rows = torch.from_numpy(np.frombuffer(data, _TYPES[values["dtype"]]).copy())
    return rows.reshape(values["shape"])


register_format(
    Format(
        name="vllm-lens",
        what="vllm-lens: a document of `apply_steering_vectors`",
        suffixes=(".json",),
        write=_write,
        read=_read,
        keeps=("coefficient",),
    )
)
