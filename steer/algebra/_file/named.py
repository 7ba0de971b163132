"""Several vector files, as the parts of one composition."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from steer.algebra._vector import Vector


def vectors_by_name(paths: Iterable[str | os.PathLike[str]]) -> dict[str, Vector]:
    """Return vectors by domain, or by file where it is not known.

    Of several files of a domain all but the first are named by their files too.
    """
    loaded: dict[str, Vector] = {}
    for path in paths:
        found = Vector.load(path)
        domain = found.provenance.domain or Path(path).stem
        loaded[domain if domain not in loaded else f"{domain} ({path})"] = found
    return loaded


def recommended(vectors: Mapping[str, Vector]) -> dict[str, float]:
    """Return the coefficient that each file recommends, and 1 where it recommends none."""
    return {n: 1.0 if v.tuning is None else v.tuning.coefficient for n, v in vectors.items()}
