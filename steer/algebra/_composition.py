"""Compositions: named vectors, one per domain, and their coefficients."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra._coefficients import (
    CoefficientsLike,
    check_coefficients,
    coefficient_rows,
    given,
)
from steer.algebra._gate import DomainGate
from steer.algebra._hub.pushed import Pushed
from steer.algebra._keywords import check_keywords
from steer.algebra._operator import get_operator
from steer.algebra._scope import ALL, Scope, parse_scope
from steer.algebra._site import Residual, Site, Weight
from steer.algebra._vector import Vector
from steer.errors import CompositionError
from steer.show import Shown

if TYPE_CHECKING:
    from steer.show import Card


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Part(Shown):
    """One domain of a composition: a vector, its operator and its scope.

    Args:
        vector: The vector; it may hold residual and weight sites at once.
        operator: Name of the operator at its residual sites, with an argument where it takes one:
            `clamp(0.5)`. Weights are always added.
        scope: The tokens it acts on.

    Raises:
        CompositionError: Unknown operator or scope, or another operator than `add` for a vector
            of weight sites alone.
    """

    vector: Vector
    operator: str = "add"
    scope: Scope = ALL

    def __post_init__(self) -> None:
        object.__setattr__(self, "operator", get_operator(self.operator).name)
        object.__setattr__(self, "scope", parse_scope(self.scope))
        sites = self.vector.sites
        if self.operator != "add" and sites and all(isinstance(s, Weight) for s in sites):
            raise CompositionError(
                "weights can only be added",
                found=f"the operator {self.operator!r} for a vector of {len(sites)} weight site(s)",
                expected="the operator 'add', or a vector with residual sites",
                do="leave the operator out; a negative coefficient takes the difference away",
            )

    def _card(self) -> "Card":
        from steer.algebra._cards.compositions import part_card

        return part_card(self)


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Composition(Pushed):
    """Named vectors under one set of coefficients.

    Calling it gives the same composition at other coefficients: `knobs(medical=0.8, legal=-0.3)`,
    `knobs(0.5)` for all domains, `knobs([{"medical": 1.0}, {"legal": 1.0}])` for one row per
    prompt. A domain that is not named gets 0.

    Args:
        parts: One part per domain, in the order of the coefficient columns.
        coefficients: `[row domain]`, dimensionless; one row for all prompts, or one per prompt. A
            copy is kept in float64, and rounded only where a dtype of the model asks for it.
        gate: Multiplies the coefficients of each prompt by its membership in each domain.
        per_row: Whether each row belongs to one prompt of the next call.

    Raises:
        CompositionError: No domain, a wrong shape, a value out of the operator's range, or a gate
            that lacks a domain.
    """

    parts: Mapping[str, Part]
    coefficients: Float[Tensor, "row domain"]
    gate: DomainGate | None = None
    per_row: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", MappingProxyType(dict(self.parts)))
        if self.gate is not None and not isinstance(self.gate, DomainGate):
            raise CompositionError(
                "this is no gate",
                found=repr(self.gate)[:80],
                expected="a DomainGate, or None",
                do="pass the one that is stored: gate=vector.gate; a domain that is called "
                "'gate' stands in the mapping: compose({'gate': vector})",
            )
        if not self.parts:
            raise CompositionError(
                "a composition needs at least one domain",
                found="none",
                expected="vectors by domain",
                do="compose(medical=vector, …)",
            )
        _check_widths(self.parts)
        check_coefficients(self.coefficients, self.domains, self.per_row)
        with torch.inference_mode(False):  # they outlive the call in which they are given
            exact = self.coefficients.detach().cpu().to(torch.float64, copy=True)
        object.__setattr__(self, "coefficients", exact)
        for k, part in enumerate(self.parts.values()):
            get_operator(part.operator).check(self.coefficients[:, k : k + 1].float())
        if self.gate is not None:
            self.gate.columns(self.domains)
            _check_gate_layer(self.gate, self.parts)

    def __reduce__(self) -> tuple[object, ...]:
        return (Composition, (dict(self.parts), self.coefficients, self.gate, self.per_row))

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, in the order of the coefficient columns."""
        return tuple(self.parts)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every site that some domain has."""
        return tuple(dict.fromkeys(s for part in self.parts.values() for s in part.vector.sites))

    def __call__(
        self, coefficients: CoefficientsLike | None = None, /, **by_domain: float
    ) -> "Composition":
        """Return the composition at other coefficients.

        Args:
            coefficients: A number for all domains; a mapping or keywords by domain; a sequence of
                one number per domain; or one row per prompt, as mappings or as a tensor
                `[batch domain]`. Dimensionless.
            **by_domain: The same by keyword.

        Returns:
            A new composition.

        Raises:
            CompositionError: No coefficients, an unknown domain, a wrong shape, or a value that is
                not finite.
        """
        value = given(coefficients, by_domain, self.domains)
        if value is None:
            raise CompositionError(
                "no coefficients are given",
                found="a call without arguments",
                expected="a number, one per domain, or one row per prompt",
                do="pass 0.0 to set all of them to zero",
            )
        rows, per_row = coefficient_rows(value, self.domains)
        return replace(self, coefficients=rows, per_row=per_row)

    def gated(self, gate: DomainGate | None) -> "Composition":
        """Return the composition with another gate, or with none.

        Args:
            gate: The gate; it must know every domain.

        Raises:
            CompositionError: The gate lacks a domain or lies above the first steered layer.
        """
        return replace(self, gate=gate)

    def _to_push(self) -> Mapping[str, Vector]:
        from steer.algebra._hub.repository import settled

        return settled(self)

    @classmethod
    def from_hub(
        cls,
        repo: str,
        *,
        revision: str | None = None,
        token: str | None = None,
        local_files_only: bool = False,
    ) -> "Composition":
        """Read all vectors of a repository and compose them at the settings in their files.

        Args:
            repo: Id of the repository.
            revision: Commit, tag or branch; None takes the newest.
            token: An access token; None takes the one you are logged in with.
            local_files_only: Whether only the cache is read, as in `Vector.from_hub`.

        Returns:
            The composition; a file without a tuning gets coefficient 1. A stored gate must be
            passed explicitly: `knobs.gated(knobs.parts["medical"].vector.gate)`.

        Raises:
            VectorFileError: Neither the Hub nor the cache has it, or a file is damaged or foreign.
            CompositionError: The files do not go together.
        """
        from steer.algebra._file.named import recommended
        from steer.algebra._hub.repository import pull

        with torch.inference_mode(False):  # its tensors outlive the call
            found = pull(repo, None, revision, token, local_files_only)
        return compose(found)(recommended(found))

    def _card(self) -> "Card":
        from steer.algebra._cards.compositions import composition_card

        return composition_card(self)


@runtime_checkable
class Composed(Protocol):
    """An object that holds a composition at its coefficients, such as the result of `select`."""

    @property
    def composition(self) -> Composition:
        """The composition."""


Steerable: TypeAlias = Vector | Part | Composition | Composed | Mapping[str, Vector | Part]


def compose(
    vectors: Mapping[str, Vector | Part] | None = None,
    /,
    *,
    gate: DomainGate | None = None,
    **by_domain: Vector | Part,
) -> Composition:
    """Return a composition of named vectors, every coefficient 1.

    Args:
        vectors: Vector of each domain, or `Part` to choose operator and scope; a vector that was
            tuned brings its own.
        gate: Decides at each prompt which domains it belongs to. One that is stored with a vector
            acts only where it is named: `gate=vector.gate`.
        **by_domain: The same by keyword.

    Returns:
        The composition; call it to set coefficients.

    Raises:
        CompositionError: No domain, a domain given twice, or vectors of unequal width.
    """
    if vectors is not None and not isinstance(vectors, Mapping):
        raise CompositionError(
            "vectors are composed by name",
            found=type(vectors).__name__,
            expected="a mapping from domain to vector, or vectors by keyword",
            do="compose(medical=vector); a choice is a composition already: choice.composition",
        )
    named = dict(vectors or {})
    if twice := named.keys() & by_domain.keys():
        raise CompositionError(
            "a domain is given twice",
            found=sorted(twice),
            expected="each domain once",
            do="name it in the mapping or as a keyword",
        )
    foreign = {k: v for k, v in by_domain.items() if not isinstance(v, Vector | Part | Composed)}
    check_keywords(foreign, (), ("gate",))
    named.update(by_domain)
    parts = {name: _part(name, value) for name, value in named.items()}
    return Composition(parts, torch.ones(1, max(len(parts), 1), dtype=torch.float64), gate)


def as_composition(what: Steerable) -> Composition:
    """Return a composition, a vector, a part or a mapping of vectors as a composition.

    Args:
        what: A composition, what `select` returned, vectors by domain, or one vector, whose
            domain is then the one of its provenance or `vector`.

    Raises:
        CompositionError: It is none of these.
    """
    if isinstance(what, Composition):
        return what
    if isinstance(what, Vector | Part):
        vector = what.vector if isinstance(what, Part) else what
        return compose({vector.provenance.domain or "vector": what})
    if isinstance(what, Mapping):
        return compose(what)
    if isinstance(what, Composed) and isinstance(what.composition, Composition):
        return what.composition
    raise CompositionError(
        "this cannot be steered with",
        found=type(what).__name__,
        expected="a Vector, a Part, a Composition, what select returned, or a mapping from domain "
        "to Vector",
        do="load vectors with Vector.load and join them with compose(...)",
    )


def _part(name: str, value: Vector | Part) -> Part:
    if isinstance(value, Part):
        return value
    if isinstance(value, Vector):
        tuned = value.tuning
        return Part(value) if tuned is None else Part(value, tuned.operator, tuned.scope)
    raise CompositionError(
        f"domain {name!r} has no vector",
        found=type(value).__name__,
        expected="a Vector or a Part",
        do="load vectors with Vector.load; of what select returned, take its vector",
    )


def _check_widths(parts: Mapping[str, Part]) -> None:
    widths = {name: part.vector.d_model for name, part in parts.items()}
    if len({w for w in widths.values() if w is not None}) > 1:
        raise CompositionError(
            "vectors of unequal width",
            found=widths,
            expected="one d_model",
            do="compose vectors of one model",
        )


def _check_gate_layer(gate: DomainGate, parts: Mapping[str, Part]) -> None:
    steered = [
        site.layer for p in parts.values() for site in p.vector.sites if isinstance(site, Residual)
    ]
    if steered and gate.layer > min(steered):
        raise CompositionError(
            "the gate would read what has already been steered",
            found=f"gate at layer {gate.layer}, first steered layer {min(steered)}",
            expected="a gate at or below the first steered layer",
            do=f"fit it with domain_gate(..., layer={min(steered)}) or lower",
        )
