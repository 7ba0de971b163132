"""What a selection over many domains found, and why."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from steer.chosen import Chosen
from steer.composition import Composition
from steer.evaluate.interval import Share
from steer.evaluate.table import Row
from steer.provenance import Tuning
from steer.search.limits import Limits
from steer.search.significance import Evidence
from steer.search.tried import Tried, front
from steer.vector import Vector

if TYPE_CHECKING:
    from steer.show.card import Card


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Selection(Chosen):
    """The coefficients that a selection chose for some domains.

    Args:
        composition: The vectors at the chosen coefficients: `lm.steered(choice)`.
        best: The setting chosen, as measured on the pairs it was chosen with.
        trials: Every setting that was tried, in that order.
        limits: What a setting may cost.
        settings: Settings that there were to choose from.
        evaluated: Settings that this call measured; others came from a study's storage.
        test: Preference accuracy by domain on pairs that the selection never saw.
        baselines: For each domain the same for `base` (unsteered), `random` (random vectors of
            equal norm at the same setting) and `prompted`.
        evidence: For each domain, tests on the same pairs.
        reduce: Whether answers were scored by mean or sum of log-probabilities.
        how: The strategy.
    """

    composition: Composition
    best: Tried
    trials: tuple[Tried, ...]
    limits: Limits
    settings: int
    evaluated: int
    test: Mapping[str, Share]
    baselines: Mapping[str, Mapping[str, Share]]
    evidence: Mapping[str, Evidence]
    reduce: str
    how: str

    @property
    def coefficients(self) -> dict[str, float]:
        """The coefficient chosen for each domain, dimensionless."""
        return dict(zip(self.composition.domains, self.best.coefficients, strict=True))

    @property
    def allowed(self) -> tuple[Tried, ...]:
        """The settings tried that keep every limit and are finite."""
        return tuple(t for t in self.trials if self._within(t))

    @property
    def second(self) -> Tried | None:
        """The next best setting that keeps the limits, if there is one."""
        others = [t for t in self.allowed if t is not self.best]
        return max(others, key=lambda t: t.rank(0.0), default=None)

    @property
    def front(self) -> tuple[Tried, ...]:
        """Settings tried to which no other is as good in both objective and KL, by rising KL."""
        return front([t for t in self.trials if t.finite])

    @property
    def active(self) -> dict[str, Tried]:
        """For each limit that shuts out a greater objective, the best setting that breaks it."""
        found = {}
        for name in self.limits.names:
            beyond = [
                t
                for t in self.trials
                if t.finite
                and self.limits.excess(t)[name] > 0
                and t.objective > self.best.objective
            ]
            if beyond:
                found[name] = max(beyond, key=lambda t: t.rank(0.0))
        return found

    @property
    def works(self) -> bool:
        """Whether the evidence holds in every domain that was asked to move."""
        return all(found.works() for found in self.evidence.values())

    @property
    def why(self) -> str:
        """Why this setting: what it was chosen from, which limit was active, what came second."""
        text = (
            f"Best of {len(self.allowed)} settings within the limits, of {len(self.trials)} tried "
            f"and {self.settings} possible: objective {self.best.objective:.4g}"
            f"{_cost(self.best)}."
        )
        for name, beyond in self.active.items():
            text += (
                f" The limit on {name} ({getattr(self.limits, name):g}) is active: "
                f"{self._at(beyond)} reaches {beyond.objective:.4g} at {name} "
                f"{getattr(beyond, name):.3g}."
            )
        if not self.active:
            text += " No limit is active."
        second = self.second
        if second is not None:
            text += f" Second is {self._at(second)} with {self._lead(second)}{_cost(second)}."
        return text

    @property
    def rows(self) -> list[Row]:
        """One row per setting tried: coefficients, objective, side effects, and each accuracy.

        `perplexity_factor` is relative to the unsteered model.
        """
        return [
            {
                **{f"coefficient.{d}": c for d, c in self._named(t).items()},
                "objective": t.objective,
                "kl": t.kl,
                "perplexity_factor": t.perplexity,
                "off_target": t.off_target,
                "within": self._within(t),
                **{f"accuracy.{d}": numbers["accuracy"] for d, numbers in t.measured.items()},
                **{f"margin.{d}": numbers["margin"] for d, numbers in t.measured.items()},
            }
            for t in self.trials
        ]

    @property
    def vectors(self) -> dict[str, Vector]:
        """The vector of each domain with the setting as its tuning, and with the gate if any."""
        found = {}
        for name, part in self.composition.parts.items():
            share = self.test.get(name)
            tuning = Tuning(
                part.vector.layers[0]
                if len(part.vector.sites) == 1 and part.vector.layers
                else None,
                self.coefficients[name],
                part.operator,
                part.scope,
                None if share is None else share.value,
                self.best.kl,
            )
            found[name] = replace(part.vector, tuning=tuning, gate=self.composition.gate)
        return found

    def _card(self) -> "Card":
        from steer.search.show import selection_card

        return selection_card(self)

    def _within(self, tried: Tried) -> bool:
        return tried.finite and self.limits.violation(tried) == 0

    def _named(self, tried: Tried) -> dict[str, float]:
        return dict(zip(self.composition.domains, tried.coefficients, strict=True))

    def _at(self, tried: Tried) -> str:
        return ", ".join(f"{d}={c:g}" for d, c in self._named(tried).items())

    def _lead(self, second: Tried) -> str:
        """Return the number in which the second is behind."""
        if second.objective != self.best.objective:
            return f"objective {second.objective:.4g}"
        if second.mean != self.best.mean:
            return (
                f"the same objective and mean accuracy {second.mean:.4g} for {self.best.mean:.4g}"
            )
        return f"the same accuracies and size {second.size:.3g} for {self.best.size:.3g}"


def _cost(tried: Tried) -> str:
    return "" if tried.kl is None else f" at KL {tried.kl:.3g}"
