"""What a selection found: the setting, what it was compared with, and everything it tried."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steer.chosen import Chosen
from steer.composition import Composition, as_composition
from steer.evaluate.interval import Share
from steer.evaluate.table import Row
from steer.search.significance import Evidence
from steer.search.tested import Tested
from steer.vector import Vector

if TYPE_CHECKING:
    from steer.show.card import Card


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting that was tried.

    Args:
        candidate: Name of the vector, for instance its position.
        layer: The layer.
        coefficient: The coefficient, dimensionless.
        accuracy: Preference accuracy on the validation pairs; NaN where the model overflows.
        likelihood: Mean score of the preferred answers there, in nats.
        kl: KL(steered‖unsteered) on neutral text, nats per response token.
    """

    candidate: str
    layer: int
    coefficient: float
    accuracy: float
    likelihood: float
    kl: float

    @property
    def finite(self) -> bool:
        """Whether every number is finite; else it is never chosen."""
        return all(map(math.isfinite, (self.accuracy, self.likelihood, self.kl)))


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Choice(Chosen):
    """The setting a selection chose; `lm.steered(choice)` steers at it.

    Args:
        vector: The chosen vector at the chosen layer, with its `tuning`.
        best: The trial that was chosen.
        trials: Every trial, in the order tried.
        kl_budget: The limit on KL, nats per response token.
        test: Preference accuracy on the test pairs, which the selection never saw.
        baselines: The same measure on the same test pairs for `base` (unsteered), `random` (a
            random direction of equal norm at that layer) and `prompted`.
        reduce: Whether answers were scored by mean or sum of log-probabilities.
        evidence: Tests on the same pairs against the unsteered model and random vectors.
        back: The other end of a knob that is to work both ways: the coefficient negated, on the
            same test pairs with chosen and rejected swapped.
    """

    vector: Vector
    best: Trial
    trials: tuple[Trial, ...]
    kl_budget: float
    test: Share
    baselines: Mapping[str, Share]
    reduce: str
    evidence: Evidence
    back: Tested | None = None

    @property
    def layer(self) -> int:
        """The layer chosen."""
        return self.best.layer

    @property
    def position(self) -> str:
        """The candidate chosen: for recorded vectors the position they were read at."""
        return self.best.candidate

    @property
    def coefficient(self) -> float:
        """The coefficient chosen, dimensionless."""
        return self.best.coefficient

    @property
    def composition(self) -> Composition:
        """The vector at the coefficient chosen, with the operator, scope and gate of its trials."""
        return as_composition(self.vector).gated(self.vector.gate)(self.coefficient)

    @property
    def coefficients(self) -> dict[str, float]:
        """The coefficient chosen by domain, dimensionless."""
        return {self.composition.domains[0]: self.coefficient}

    @property
    def vectors(self) -> dict[str, Vector]:
        """The chosen vector by domain, with the setting as its tuning, and with the gate if any."""
        return {self.composition.domains[0]: self.vector}

    @property
    def rows(self) -> list[Row]:
        """One row per setting tried: candidate, layer, coefficient, accuracy, likelihood and KL.

        `within` is whether it is finite and keeps the limit on KL.
        """
        return [
            {
                "candidate": t.candidate,
                "layer": t.layer,
                "coefficient": t.coefficient,
                "accuracy": t.accuracy,
                "likelihood": t.likelihood,
                "kl": t.kl,
                "within": t.finite and t.kl <= self.kl_budget,
            }
            for t in self.trials
        ]

    @property
    def works(self) -> bool:
        """Whether the vector does more than none and than random ones of equal norm, at α = 0.01.

        Both tests are on pairs that the choice never saw, corrected for the number of settings
        tried; see `steer.search.significance`. A knob that is to work both ways must at both ends.
        """
        return self.evidence.works() and (self.back is None or self.back.evidence.works())

    def _card(self) -> "Card":
        from steer.search.show import choice_card

        return choice_card(self)
