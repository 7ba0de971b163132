"""What a selection found: the setting, what it was compared with, and everything it tried."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steer.evaluate.interval import Share
from steer.search.significance import Evidence
from steer.vector import Vector

if TYPE_CHECKING:
    from steer.report import Report


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting that was tried.

    Args:
        candidate: Name of the vector, for instance its position.
        layer: The layer.
        coefficient: The coefficient, dimensionless.
        accuracy: Preference accuracy on the validation pairs.
        likelihood: Mean score of the preferred answers there, in nats.
        kl: KL(steered‖unsteered) on neutral text, nats per response token.
    """

    candidate: str
    layer: int
    coefficient: float
    accuracy: float
    likelihood: float
    kl: float


@dataclass(frozen=True, eq=False, slots=True)
class Choice:
    """The setting a selection chose.

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
    """

    vector: Vector
    best: Trial
    trials: tuple[Trial, ...]
    kl_budget: float
    test: Share
    baselines: Mapping[str, Share]
    reduce: str
    evidence: Evidence

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
    def works(self) -> bool:
        """Whether the vector does more than none and than random ones of equal norm, at α = 0.01.

        Both tests are on pairs that the choice never saw, corrected for the number of settings
        tried; see `steer.search.significance`.
        """
        return self.evidence.works()

    def report(self, title: str = "Steering report") -> "Report":
        """Return this result as a page.

        Args:
            title: Title of the page.
        """
        from steer.report import Report

        return Report.of(self, title=title)

    def __repr__(self) -> str:
        best = self.best
        lines = [
            f"Choice: {best.candidate} at layer {best.layer}, coefficient {best.coefficient:g}",
            f"  validation {best.accuracy:.1%}, KL {best.kl:.3f} of {self.kl_budget:g} nats/token, "
            f"{len(self.trials)} settings tried",
            f"  preference accuracy on {self.test.n} unseen test pairs ({self.reduce} log-prob.)",
            f"    steered   {self.test}",
        ]
        lines += [f"    {name:<9} {share}" for name, share in self.baselines.items()]
        lines.append(f"  {self.evidence}")
        if not self.works:
            lines.append("  The vector is not shown to do more than the baselines.")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [("steered", self.test), *self.baselines.items()]
        body = "".join(f"<tr><td>{name}</td><td>{share}</td></tr>" for name, share in rows)
        best = self.best
        return (
            f"<p><b>{best.candidate}</b>, layer {best.layer}, coefficient {best.coefficient:g}, "
            f"KL {best.kl:.3f} of {self.kl_budget:g} nats/token</p>"
            f"<table><tr><th>on {self.test.n} unseen pairs</th>"
            f"<th>preference accuracy</th></tr>{body}</table>"
        )
