"""The context in which a model is steered, which is also its handle, and what goes into it."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from steer._check import one_of
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
from steer.engine import Attachment, Engine
from steer.engine._base import WeightMode
from steer.errors import SteeringError
from steer.show import Shown

if TYPE_CHECKING:
    from steer.show import Card


class Steered(Shown):
    """A composition that is injected between `attach` and `remove`, or inside `with`.

    Args:
        engine: The engine that injects.
        composition: What to inject.
        weights: How weight sites are steered: `hook`, `merge`, or whichever is exact (`auto`).
        tokenizer: The model's tokenizer, if it has one; scopes with a marker need it.
        attachment: An active steering of which this is another handle.
    """

    def __init__(
        self,
        engine: Engine,
        composition: Composition,
        weights: WeightMode = "auto",
        tokenizer: Any = None,
        attachment: Attachment | None = None,
    ) -> None:
        one_of("weights", weights, get_args(WeightMode), do="leave it out for 'auto'")
        self._engine = engine
        self._composition = composition
        self._weights: WeightMode = weights
        self._tokenizer = tokenizer
        self._attachment = attachment

    @property
    def composition(self) -> Composition:
        """The composition, with its current coefficients."""
        return self._composition if self._attachment is None else self._attachment.composition

    @property
    def active(self) -> bool:
        """Whether the model is being steered by this handle."""
        return self._attachment is not None and self._attachment.active

    def attach(self) -> "Steered":
        """Start injecting.

        Returns:
            This handle.

        Raises:
            SteeringError: It is attached already.
            BusyModelError: Another thread is steering this model.
            CapabilityError: The engine cannot inject this composition.
        """
        if self.active:
            raise SteeringError(
                "this steering is attached already",
                found="a second attach()",
                expected="one attach() and one remove()",
                do="call lm.steered(...) again for a second one",
            )
        self._attachment = self._engine.attach(
            self.composition, weights=self._weights, tokenizer=self._tokenizer
        )
        return self

    def remove(self) -> None:
        """Stop injecting; a second call does nothing."""
        if self._attachment is not None:
            self._composition = self._attachment.composition
            self._attachment.remove()
            self._attachment = None

    def update(
        self, coefficients: CoefficientsLike | None = None, /, **by_domain: float
    ) -> "Steered":
        """Take other coefficients without detaching; compiled graphs stay valid.

        Args:
            coefficients: See `Composition.__call__`.
            **by_domain: Coefficients by domain.

        Returns:
            This handle.

        Raises:
            CompositionError: The coefficients cannot be used, or there are none.
            MergeError: Merged weights cannot take them. All is as before then, as after any
                failure.
        """
        changed = self.composition(coefficients, **by_domain)
        if changed.per_row != self.composition.per_row and self.active:
            raise SteeringError(
                "an attached steering cannot change between one setting and rows",
                found=f"per_row={changed.per_row}",
                expected=f"per_row={self.composition.per_row}",
                do="remove it and attach another",
            )
        if self._attachment is not None and self._attachment.active:
            self._attachment.update(changed)
        else:
            self._composition, self._attachment = changed, None
        return self

    def __enter__(self) -> "Steered":
        return self.attach()

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _card(self) -> "Card":
        from steer.algebra._cards.compositions import steered_card

        return steered_card(self.composition, attached=self.active)


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
        coefficients = ", ".join(f"{c:g}" for c in tuned)
        warnings.warn(
            f"no coefficient is given, so it is 1; the vector was tuned to {coefficients}; pass "
            "either: lm.steered(vector, vector.tuning.coefficient) or (vector, 1.0)",
            stacklevel=3,
        )
