"""The arguments of `lm.steered` that override a composition's own settings."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from steer.algebra import (
    CoefficientsLike,
    Composition,
    DomainGate,
    Part,
    Scope,
    Vector,
    parse_scope,
)
from steer.algebra._coefficients import coefficient_rows


def with_own(
    composition: Composition,
    value: CoefficientsLike | None,
    operator: str | None,
    scope: Scope | str | None,
    gate: DomainGate | None,
) -> Composition:
    """Return a composition with the given settings in place of its own."""
    changes: dict[str, Any] = {}
    if operator is not None or scope is not None:
        changes["parts"] = {
            name: Part(
                part.vector,
                part.operator if operator is None else operator,
                part.scope if scope is None else parse_scope(scope),
            )
            for name, part in composition.parts.items()
        }
    if value is not None:
        changes["coefficients"], changes["per_row"] = coefficient_rows(value, composition.domains)
    if gate is not None:
        changes["gate"] = gate
    return replace(composition, **changes) if changes else composition


def warn_of_tuning(what: object) -> None:
    """Warn of vectors without a coefficient that were tuned to another one than 1."""
    named = what if isinstance(what, Mapping) else {"": what}
    tuned = [v.tuning.coefficient for v in named.values() if isinstance(v, Vector) and v.tuning]
    if any(c != 1 for c in tuned):
        warnings.warn(
            f"no coefficient is given, so it is 1; the vector was tuned to {_listed(tuned)}; pass "
            "either: lm.steered(vector, vector.tuning.coefficient) or (vector, 1.0)",
            stacklevel=3,
        )


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{c:g}" for c in numbers)
