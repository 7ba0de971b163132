"""Files of lm-eval's model `steered`: a dict from hook points, names inside the base model.

Some versions of lm-eval use the last vector and coefficient at every hook point.
"""

import re
from pathlib import Path

from steer.algebra import Vector
from steer.exchange._exchange import imported
from steer.exchange._registry import Format, register_format
from steer.exchange._torch_file import load_tensors, save_tensors

_LAYER = re.compile(r"\D*(0|[1-9][0-9]{0,5})")


def _write(vector: Vector, path: Path, *, blocks: str = "layers") -> None:
    """Write an entry for each layer; `blocks` is the list of blocks, `h` for GPT-2."""
    entries = {
        f"{blocks}.{layer}": {
            "action": "add",
            "steering_vector": vector.direction(layer).float().cpu(),
            "steering_coefficient": vector.tuning.coefficient if vector.tuning else 1.0,
            "bias": None,
            "head_index": None,
        }
        for layer in vector.layers
    }
    save_tensors(path, entries)


def _read(path: Path) -> Vector:
    directions, coefficients = {}, set()
    for name, entry in load_tensors(path).items():
        match = _LAYER.fullmatch(name)
        odd = entry["action"] != "add" or entry.get("head_index") is not None
        if match is None or odd or entry.get("bias") is not None:
            raise ValueError(f"{name}: more than a direction added to the output of a block")
        layer = int(match[1])
        if layer in directions:
            raise ValueError(f"{name}: layer {layer} twice")
        directions[layer] = entry["steering_vector"]
        coefficients.add(float(entry.get("steering_coefficient", 1.0)))
    if len(coefficients) > 1:
        raise ValueError(f"a coefficient for each layer: {sorted(coefficients)}")
    coefficient = coefficients.pop() if coefficients else None
    return imported(dict(sorted(directions.items())), coefficient=coefficient)


register_format(
    Format(
        name="lm-eval",
        what="lm-eval: steer_path of the model `steered`",
        suffixes=(".pt",),
        write=_write,
        read=_read,
        keeps=("coefficient",),
    )
)
