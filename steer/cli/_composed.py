"""`-v FILE:COEF`, as several commands take it."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from steer.cli._common import tell
from steer.errors import CompositionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from steer.algebra import Composition, DomainGate, Vector

_DECIMAL_COMMA = re.compile(r":([+-]?\d+),(\d+)$")
Setting = dict[str, float]  # the coefficient of each vector, by its name in the composition


def composed(vectors: list[str], gate: bool) -> "Composition | None":
    """Return the composition that FILE:COEF arguments ask for, or None without an argument."""
    for argument in vectors:
        file_and_coefficient(argument)
    return at_strengths(vectors, gate)[0]


def at_strengths(vectors: list[str], gate: bool) -> "tuple[Composition | None, list[Setting]]":
    """Return the composition that FILE:COEF,COEF,… arguments ask for, and all of its settings.

    A setting is the k-th coefficient of each vector, where one coefficient stands for all and the
    file's own for none. Of several files of a domain all but the first are named by their files
    too, and the gate opens all of them for that domain. Without `gate`, a stored one is reported
    on standard error.

    Raises:
        VectorFileError: A file cannot be read.
        CompositionError: Arguments with different numbers of coefficients, or a gate is asked for
            and the files hold none or several.
    """
    from steer.algebra import compose
    from steer.algebra._file.named import recommended, vectors_by_name

    if not vectors:
        return None, []
    for argument in vectors:
        _say_of_commas(argument)
    paths, given = zip(*map(_file_and_coefficients, vectors), strict=True)
    loaded = vectors_by_name(paths)
    own = recommended(loaded)
    coefficients = {n: c or (own[n],) for n, c in zip(loaded, given, strict=True)}
    settings = _settings(coefficients, vectors)
    if not gate and any(vector.gate is not None for vector in loaded.values()):
        tell("These files hold a domain gate, which is not used; --gate uses it.")
    used = _gate(loaded, vectors) if gate else None
    return compose(loaded, gate=used)(settings[0]), settings


def _settings(
    coefficients: "Mapping[str, tuple[float, ...]]", arguments: list[str]
) -> list[Setting]:
    count = max(map(len, coefficients.values()))
    if any(len(given) not in (1, count) for given in coefficients.values()):
        raise CompositionError(
            "the vectors have different numbers of coefficients",
            found=", ".join(arguments),
            expected=f"one coefficient, or {count}, for each vector",
            do="write as many for each, or one that stays the same",
        )
    return [
        {name: given[k if len(given) > 1 else 0] for name, given in coefficients.items()}
        for k in range(count)
    ]


def _gate(vectors: "Mapping[str, Vector]", arguments: list[str]) -> "DomainGate":
    """Return the one gate stored in the files, with a centroid for every name."""
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
    return _naming(first, {n: v.provenance.domain or n for n, v in vectors.items()})


def _naming(gate: "DomainGate", domains: "Mapping[str, str]") -> "DomainGate":
    """Return a gate that opens each name as it opens the domain of that name."""
    further = {n: d for n, d in domains.items() if n not in gate.domains and d in gate.domains}
    own = len(gate.domains)
    rows = [*range(own), *(gate.domains.index(d) for d in further.values())]
    rows += range(own, len(gate.centroids))  # the background stands last
    return replace(gate, domains=(*gate.domains, *further), centroids=gate.centroids[rows])


def _equal(left: "DomainGate", right: "DomainGate") -> bool:
    ours, theirs = left.centroids, right.centroids
    same = (left.domains, left.layer, left.margin) == (right.domains, right.layer, right.margin)
    return same and ours.shape == theirs.shape and bool((ours == theirs).all())


def file_and_coefficient(argument: str) -> tuple[Path, float | None]:
    """Return the file and the coefficient, None without any, of FILE:COEF."""
    path, given = _file_and_coefficients(argument)
    if given is not None and len(given) > 1:
        raise CompositionError(
            "this command takes one coefficient of each vector",
            found=argument,
            expected="FILE:COEF with one number",
            do=f"write one number, with a decimal point: {path}:0.5; `steer generate` compares "
            "several",
        )
    return path, None if given is None else given[0]


def _file_and_coefficients(argument: str) -> tuple[Path, tuple[float, ...] | None]:
    """Return the file and the coefficients, None without any, of FILE:COEF,COEF,…."""
    path, colon, numbers = argument.rpartition(":")
    if not colon or os.path.exists(argument):
        return Path(argument), None
    try:
        return Path(path), tuple(float(number) for number in numbers.split(","))
    except ValueError:
        if not os.path.exists(path):
            return Path(argument), None
        raise CompositionError(
            f"the coefficient of {path} is not a number",
            found=repr(numbers),
            expected="FILE:COEF with a number or several, or FILE alone",
            do=f"write for instance {path}:0.5 or {path}:-1,0,1",
        ) from None


def _say_of_commas(argument: str) -> None:
    """Say that a comma is none of a decimal number, where it may be meant as one."""
    if found := _DECIMAL_COMMA.search(argument):
        tell(
            f"{found[1]},{found[2]} is two strengths, {found[1]} and {found[2]}; one strength has "
            f"a decimal point: {found[1]}.{found[2]}"
        )
