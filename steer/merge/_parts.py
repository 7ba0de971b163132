"""The parts that a caller merges into a checkpoint: vectors and models, with coefficients."""

import math
from collections.abc import Sequence
from pathlib import Path

from steer._check import as_list
from steer.algebra import Vector
from steer.algebra._coefficients import number
from steer.algebra._file.file import inspect_header
from steer.errors import CheckpointError, CompositionError, MergeError
from steer.network import Checkpoint
from steer.store import path_of
from steer.store._described import about, check_tensor

Given = Vector | str | Path
Mergeable = Vector | Checkpoint


def paired(parts: Sequence[tuple[Given, float]]) -> list[tuple[Given, float]]:
    """Return the parts with their coefficients as plain floats."""
    return [_pair(part) for part in as_list("parts", parts)]


def _pair(part: object) -> tuple[Given, float]:
    pair = tuple(part) if isinstance(part, tuple | list) else ()
    if len(pair) != 2 or not isinstance(pair[0], Vector | str | Path):
        raise MergeError(
            "a part to merge must be a pair",
            found=f"{type(part).__name__} {part!r}"[:120],
            expected="a vector, a file, a folder or an id, and its coefficient",
            do="pass pairs: merge_checkpoint(model, [(vector, 0.8)], out)",
        )
    given, coefficient = pair
    try:
        found = number(coefficient)
    except CompositionError:
        found = math.nan
    if not math.isfinite(found):
        raise MergeError(
            "a coefficient must be a finite number",
            found=f"{type(coefficient).__name__} {coefficient!r}"[:120],
            expected="a finite number",
            do="pass a number such as 0.8; strings are not converted",
        )
    return given, found


def opened(part: Given) -> Mergeable:
    """Return a part with its tensors on disk: a vector, a mapped vector file, or a checkpoint."""
    if isinstance(part, Vector):
        return part
    path = path_of(part, CheckpointError)
    return mapped_vector(path) if path.is_file() else Checkpoint.open(part)


def mapped_vector(path: Path) -> Vector:
    """Return a validated vector whose tensors are views of the mapped file."""
    from safetensors import safe_open

    from steer.algebra._file.document import build_vector, read_document

    document = read_document(inspect_header(path))
    tensors = {}
    with about(path), safe_open(path, framework="pt") as file:
        for name, info in document.tensors.items():
            tensors[name] = file.get_tensor(name)
            check_tensor(name, tensors[name], info.sha256)
        return build_vector(document, tensors)
