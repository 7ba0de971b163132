"""The candidates of a selection: alternatives, or one composition of several domains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steer._check import as_list
from steer.algebra import Composition, DomainGate, Part, Scope, Vector, as_composition, parse_scope
from steer.algebra._composition import Composed
from steer.errors import ArgumentError, SelectionError
from steer.extract import Activations, mean_difference
from steer.extract._mean_difference import with_difference
from steer.measure._grid import composed
from steer.selection._setting import label

Candidates = (
    Activations | Vector | Sequence[Vector] | Mapping[str, Vector] | Composition | Part | Composed
)


@dataclass(frozen=True, eq=False, slots=True)
class Candidate:
    """One alternative: a composition whose coefficients are to be chosen."""

    name: str
    composition: Composition
    layer: int | None = None
    pairs_fingerprint: str | None = None

    @property
    def label(self) -> str:
        """The candidate and its layer, in words."""
        return label(self.name, self.layer)


def candidates_of(
    given: Candidates,
    layers: Sequence[int] | None,
    operator: str | None,
    scope: Scope | str | None,
    gate: DomainGate | None,
) -> list[Candidate]:
    """Return the candidates: one for each vector and layer, or one composition."""
    layers = None if layers is None else as_list("layers", layers)
    if not alternatives(given):
        if layers is not None:
            raise SelectionError(
                "a composition acts where its vectors do",
                found=f"layers={layers} beside a composition",
                expected="layers for alternatives only",
                do="compose(medical=vector[14], …)",
            )
        whole = as_composition(given)  # type: ignore[arg-type]
        knobs = composed(whole, scope=scope, operator=operator)
        return [Candidate("", knobs if gate is None else knobs.gated(gate))]
    named = _named(given)  # type: ignore[arg-type]
    domains = {vector.provenance.domain for _, vector in named}
    domain = str(domains.pop()) if len(domains) == 1 and None not in domains else "vector"
    found = []
    for name, vector in named:
        for layer, own in _by_layer(vector, layers):
            part = Part(own, operator or "add", parse_scope("all" if scope is None else scope))
            knob = as_composition({domain: part}).gated(gate)
            found.append(Candidate(name, knob, layer, vector.provenance.pairs_fingerprint))
    if not found:
        raise SelectionError(
            "there is nothing to choose from",
            found=f"{type(given).__name__} of {len(named)} vectors, layers {layers}",
            expected="a vector that is not 0 at one of the layers",
            do="look at vector.layers",
        )
    return found


def alternatives(given: Candidates) -> bool:
    """Return whether one of several is to be chosen, rather than coefficients of a composition."""
    return not isinstance(given, Composition | Part | Composed)


def _named(
    given: Activations | Vector | Sequence[Vector] | Mapping[str, Vector],
) -> list[tuple[str, Vector]]:
    """Return the vectors by name; of a recording the mean difference at each position."""
    if isinstance(given, Activations):
        domain, layers = given.domain(), given.layers
        moving = [p for p in given.positions if with_difference(given, domain, p, layers)]
        return [(p, mean_difference(given, domain=domain, position=p)) for p in moving]
    if isinstance(given, Vector):
        given = [given]
    values = [*given.values()] if isinstance(given, Mapping) else as_list("candidates", given)
    if wrong := [value for value in values if not isinstance(value, Vector)]:
        raise ArgumentError(
            "the candidates are neither a recording nor vectors",
            found=f"{type(given).__name__} of {type(wrong[0]).__name__}",
            expected="a recording, a vector, several vectors, or a composition",
            do="record the pairs first: select(model, steer.record(model, pairs), held_out)",
        )
    if isinstance(given, Mapping):
        return list(given.items())
    return [(_name(vector, k), vector) for k, vector in enumerate(values)]


def _name(vector: Vector, k: int) -> str:
    position = vector.provenance.arguments.get("position")
    return str(position) if position is not None else f"vector {k}"


def _by_layer(vector: Vector, layers: Sequence[int] | None) -> list[tuple[int | None, Vector]]:
    """Return a vector at each requested layer; a vector of weights is returned whole."""
    if len(vector.layers) < len(vector.terms):
        return [(None, vector)]
    wanted = [k for k in vector.layers if layers is None or k in layers]
    return [(k, vector[k]) for k in wanted if bool(vector.direction(k).any())]
