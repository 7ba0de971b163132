"""`-v FILE:COEF`, as several commands take it."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from steer.cli.common import plain_console
from steer.errors import CompositionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from steer.composition import Composition
    from steer.gate import DomainGate
    from steer.vector import Vector


def composed(vectors: list[str], gate: bool) -> "Composition | None":
    """Return the composition that FILE:COEF arguments ask for, or None for none.

    A gate that is stored in a file and not asked for is told of on the standard error. Of several
    files of one domain all but the first are named by their files too; the gate opens all of them
    for that domain.

    Args:
        vectors: The arguments; without a coefficient the file's own recommendation is used.
        gate: Whether to use the gate that is stored in the files.

    Raises:
        VectorFileError: A file cannot be read.
        CompositionError: A gate is asked for, and the files hold none or several.
    """
    from steer.composition import compose
    from steer.vector import Vector

    loaded: dict[str, Vector] = {}
    coefficients: dict[str, float] = {}
    domains: dict[str, str] = {}  # of each name
    for argument in vectors:
        path, coefficient = _file_and_coefficient(argument)
        vector = Vector.load(path)
        tuned = 1.0 if vector.tuning is None else vector.tuning.coefficient
        domain = vector.provenance.domain or path.stem
        name = domain if domain not in loaded else f"{domain} ({path})"
        domains[name] = domain
        loaded[name] = vector
        coefficients[name] = tuned if coefficient is None else coefficient
    if not loaded:
        return None
    if not gate and any(vector.gate is not None for vector in loaded.values()):
        note = "These files hold a domain gate, which is not used; --gate uses it."
        plain_console(stderr=True).print(note, soft_wrap=True)
    return compose(loaded, gate=_gate(loaded, domains, vectors) if gate else None)(coefficients)


def _gate(
    vectors: "Mapping[str, Vector]", domains: "Mapping[str, str]", arguments: list[str]
) -> "DomainGate":
    """Return the gate that all vectors with one were stored with, which knows every name."""
    gates = {name: vector.gate for name, vector in vectors.items() if vector.gate is not None}
    if not gates:
        raise CompositionError(
            "no gate is stored in these files",
            found=", ".join(arguments),
            expected="a vector that was saved with a domain gate",
            do="leave out --gate",
        )
    (name, first), *others = gates.items()
    for other_name, other in others:
        if not _equal(first, other):
            raise CompositionError(
                "different gates are stored in these files",
                found=f"{name}: {first}; {other_name}: {other}",
                expected="one gate, fitted on the prompts of all domains",
                do="fit one with steer.domain_gate and save it with every vector",
            )
    return _naming(first, domains)


def _naming(gate: "DomainGate", domains: "Mapping[str, str]") -> "DomainGate":
    """Return a gate that opens further names of its domains as it opens these."""
    further = {n: d for n, d in domains.items() if n not in gate.domains and d in gate.domains}
    own = len(gate.domains)
    rows = [*range(own), *(gate.domains.index(d) for d in further.values())]
    rows += range(own, len(gate.centroids))  # the background stands last
    return replace(gate, domains=(*gate.domains, *further), centroids=gate.centroids[rows])


def _equal(left: "DomainGate", right: "DomainGate") -> bool:
    ours, theirs = left.centroids, right.centroids
    same = (left.domains, left.layer, left.margin) == (right.domains, right.layer, right.margin)
    return same and ours.shape == theirs.shape and bool((ours == theirs).all())


def _file_and_coefficient(argument: str) -> tuple[Path, float | None]:
    path, colon, number = argument.rpartition(":")
    if not colon or os.path.exists(argument):
        return Path(argument), None
    try:
        return Path(path), float(number)
    except ValueError:
        if not os.path.exists(path):
            return Path(argument), None
        raise CompositionError(
            f"the coefficient of {path} is no number",
            found=repr(number),
            expected="FILE:COEF with a number, or FILE alone",
            do=f"write for instance {path}:0.5",
        ) from None
