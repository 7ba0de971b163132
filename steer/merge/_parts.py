"""What is merged into a checkpoint, as it is given: vectors and models, each with a coefficient."""

import math
from collections.abc import Sequence
from pathlib import Path

from steer._check import as_list
from steer.algebra import Vector
from steer.algebra._composition import number
from steer.errors import CompositionError, MergeError

Given = Vector | str | Path


def paired(parts: Sequence[tuple[Given, float]]) -> list[tuple[Given, float]]:
    """Return parts with plain coefficients.

    Args:
        parts: Vectors, files, folders or ids, each with its coefficient.

    Raises:
        MergeError: They are no such pairs, or a coefficient is no finite number.
        SelectionError: They are no sequence.
    """
    return [_pair(part) for part in as_list("parts", parts)]


def _pair(part: object) -> tuple[Given, float]:
    pair = tuple(part) if isinstance(part, tuple | list) else ()
    if len(pair) != 2 or not isinstance(pair[0], Vector | str | Path):
        raise MergeError(
            "this is no part to be merged",
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
            "a coefficient is no finite number",
            found=f"{type(coefficient).__name__} {coefficient!r}"[:120],
            expected="a number",
            do="pass for instance 0.8; a text is not read as a number",
        )
    return given, found
