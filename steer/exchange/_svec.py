"""`.svec` files of CAST (IBM/activation-steering) and AISteer360: JSON with a direction per layer.

Key *i* is the output of block *i*. CAST adds it to the input of block *i*, and AISteer360 does so
too with `location="layer_input"`, which the file does not say.
"""

import json
import re
from pathlib import Path
from typing import Any, Literal

import torch

from steer.algebra import Vector
from steer.errors import ArgumentError, VectorFileError
from steer.exchange._exchange import imported
from steer.exchange._registry import Format, register_format
from steer.store import _strict_json as strict_json
from steer.store import read_file, write_text

_LAYER = re.compile(r"0|[1-9][0-9]{0,5}")
_LONGEST = 2**27  # bytes: 80 layers of width 8192 take 14 million


def _write(vector: Vector, path: Path, *, model_type: str = "unknown") -> None:
    document = {
        "model_type": model_type,
        "directions": {str(n): vector.direction(n).float().tolist() for n in vector.layers},
        "explained_variances": {},
        "steer": {"hook_point": "resid_post", "domain": vector.provenance.domain},
    }
    write_text(path, json.dumps(document), VectorFileError)


def _read(path: Path, *, at: Literal["output", "input"] | None = None) -> Vector:
    """Read directions; `at` says whether they are added to the output or the input of a block."""
    document: Any = strict_json.loads(read_file(path, VectorFileError, most=_LONGEST).decode())
    own = document.get("steer", {})
    if at is None and own.get("hook_point") != "resid_post":
        raise ArgumentError(
            "the file does not say where its directions are added",
            found="layers alone",
            expected="at='output' of block i, as AISteer360 does by default, or at='input', as "
            "CAST does",
            do="pass the one that the library uses",
        )
    shift = int(at == "input")
    found = {
        _layer_of(n): torch.tensor(values, dtype=torch.float32)
        for n, values in document["directions"].items()
    }
    if any(v.ndim == 2 and len(v) > 1 for v in found.values()):
        raise ValueError("a direction for each of several positions")
    return imported(
        {n - shift: v[0] if v.ndim == 2 else v for n, v in sorted(found.items())},
        domain=own.get("domain"),
        model=str(document["model_type"]),
    )


def _layer_of(key: str) -> int:
    if _LAYER.fullmatch(key) is None:  # a number is written in one way, so that no layer is twice
        raise ValueError(f"{key!r} is no layer")
    return int(key)


register_format(
    Format(
        name="svec",
        what="CAST (IBM/activation-steering), AISteer360",
        suffixes=(".svec",),
        write=_write,
        read=_read,
        keeps=("domain",),
    )
)
