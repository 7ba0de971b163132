"""The result of a selection: the chosen setting, its test and baselines, and all trials."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from steer.algebra import Composition, Tuning, Vector
from steer.algebra._file.folder import save_by_domain
from steer.errors import SelectionError
from steer.measure import Share
from steer.selection._answers import Visible
from steer.selection._confirm import Beside, HeldOutResult
from steer.selection._field import Screened
from steer.selection._setting import Limits, SettingResult, front
from steer.selection._significance import Evidence
from steer.show import Card, Result, Row

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Selection(Result):
    """The setting that `select` chose; `lm.steered(selection)` steers at it.

    Args:
        composition: The vectors at the chosen coefficients, with operator, scope and gate.
        best: The setting chosen, as measured on the pairs it was chosen with.
        trials: Every setting that was measured, in that order.
        limits: Side effects that a setting must not exceed.
        held_out: By domain, the result on pairs that the selection never saw.
        back: The same of the coefficients negated on swapped pairs, if both ways were asked for.
        visible: Answers to prompts of those pairs, before and after; None if none were generated.
        kl: KL(steered‖unsteered) on neutral text that took no part in choosing, nats per response
            token; None if it was not measured.
        displacement: How far the setting displaces the residual stream, relative to its median
            norm; None where nothing is added to it.
        screened: What the screen of a race did; None without one.
        reduce: Whether answers were scored by mean or sum of log-probabilities.
        strategy: The strategy.
        palrs: What PaLRS's own rule takes from the same recording, at the same KL budget; None
            where the candidates are no recording or there is no budget.
        preferred: Why the setting was preferred to the one that ranks first; empty if it is that.
    """

    composition: Composition
    best: SettingResult
    trials: tuple[SettingResult, ...]
    limits: Limits
    held_out: Mapping[str, HeldOutResult]
    back: Mapping[str, HeldOutResult] | None
    visible: Visible | None
    kl: float | None
    displacement: float | None
    screened: Screened | None
    reduce: str
    strategy: str
    palrs: Beside | None = None
    preferred: str = ""

    @property
    def test(self) -> dict[str, Share]:
        """Preference accuracy by domain on the held-out pairs."""
        return {name: found.steered for name, found in self.held_out.items()}

    @property
    def baselines(self) -> dict[str, dict[str, Share]]:
        """By domain the accuracies of `base`, `random` and `prompted` on the same pairs."""
        return {name: found.baselines for name, found in self.held_out.items()}

    @property
    def evidence(self) -> dict[str, Evidence]:
        """By domain, tests of the margins on the same pairs."""
        return {name: found.evidence for name, found in self.held_out.items()}

    @property
    def vector(self) -> Vector:
        """The chosen vector with the setting as its tuning, where there is one domain.

        Raises:
            SelectionError: There are several domains.
        """
        return self._only("vector", self.vectors)

    @property
    def coefficient(self) -> float:
        """The coefficient chosen, dimensionless, where there is one domain.

        Raises:
            SelectionError: There are several domains.
        """
        return self._only("coefficient", self.coefficients)

    @property
    def layer(self) -> int | None:
        """The layer chosen among alternatives; None where the choice acts at several."""
        return self.best.layer

    @property
    def position(self) -> str:
        """The alternative chosen: for recorded vectors the position they were read at."""
        return self.best.candidate

    @property
    def coefficients(self) -> dict[str, float]:
        """The coefficient chosen for each domain, dimensionless."""
        return dict(zip(self.composition.domains, self.best.coefficients, strict=True))

    @property
    def allowed(self) -> tuple[SettingResult, ...]:
        """The settings tried that keep every limit and are finite."""
        return tuple(t for t in self._known if self.limits.violation(t) == 0)

    @property
    def second(self) -> SettingResult | None:
        """The next best setting that keeps the limits, if there is one."""
        others = [t for t in self.allowed if t is not self.best]
        return max(others, key=lambda t: t.rank(0.0), default=None)

    @property
    def front(self) -> tuple[SettingResult, ...]:
        """Settings tried to which no other is as good in both objective and KL, by rising KL."""
        known = self._known
        return tuple(known[k] for k in front([(t.kl, t.objective) for t in known]))

    @property
    def active(self) -> dict[str, SettingResult]:
        """For each limit that shuts out a greater objective, the best setting that breaks it."""
        better = [t for t in self._known if t.objective > self.best.objective]
        beyond = {
            name: [t for t in better if self.limits.excess(t)[name] > 0]
            for name in self.limits.names
        }
        return {name: max(ts, key=lambda t: t.rank(0.0)) for name, ts in beyond.items() if ts}

    @property
    def likelihood_effect(self) -> bool:
        """Whether the setting beats no steering and random vectors of equal norm, at α = 0.01.

        Tested on pairs that the selection never saw, in every domain that was asked to move, and at
        both ends where both were asked for; see `Evidence`. It is an effect on the likelihood of
        given answers; `visible` says whether generated text changes.
        """
        ends = [*self.held_out.values(), *(self.back or {}).values()]
        return all(found.evidence.holds() for found in ends)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the vector of each domain, with its setting, to `<folder>/<domain>.safetensors`.

        `selection.vectors[domain].save(path)` writes one under another name.

        Args:
            folder: Where to; it is made if it does not exist.

        Raises:
            VectorFileError: A file cannot be written, or a file is named in place of a folder.
            CompositionError: The name of a domain cannot be that of a file.
        """
        save_by_domain(self.vectors, folder)

    @property
    def why(self) -> str:
        """Why this setting was chosen: its objective, the active limit and the runner-up."""
        text = (
            f"{'Chosen' if self.preferred else 'Best'} of {len(self.allowed)} settings within the "
            f"limits, of {len(self.trials)} measured: objective {self.best.objective:.4g}"
            f"{_cost(self.best)}."
        )
        if self.preferred:
            text += f" {self.preferred}"
        for name, beyond in self.active.items():
            text += (
                f" The limit on {name} ({getattr(self.limits, name):g}) is active: "
                f"{self._at(beyond)} reaches {beyond.objective:.4g} at {name} "
                f"{getattr(beyond, name):.3g}."
            )
        if not self.active and self.screened is not None and self.limits.kl is not None:
            text += f" Each was as strong as the KL budget of {self.limits.kl:g} allows, or weaker."
        elif not self.active:
            text += " No limit is active."
        second = self.second
        if second is not None and not self.preferred:
            text += f" Second is {self._at(second)} with {self._lead(second)}{_cost(second)}."
        return text

    @property
    def rows(self) -> list[Row]:
        """One row per setting: candidate, coefficients, objective, side effects, each accuracy.

        `perplexity_factor` is relative to the unsteered model.
        """
        allowed = {id(t) for t in self.allowed}
        return [
            {
                **({} if not t.name else {"candidate": t.candidate, "layer": t.layer}),
                **{f"coefficient.{d}": c for d, c in self._named(t).items()},
                "objective": t.objective,
                "kl": t.kl,
                "perplexity_factor": t.perplexity,
                "off_target": t.off_target,
                "within": id(t) in allowed,
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
                self.best.kl if self.kl is None else self.kl,
                self.baselines[name]["base"].value if name in self.held_out else None,
            )
            found[name] = replace(part.vector, tuning=tuning, gate=self.composition.gate)
        return found

    def _card(self) -> Card:
        from steer.selection._show import selection_card

        return selection_card(self)

    @property
    def _known(self) -> list[SettingResult]:
        """The settings that were measured on all pairs and may be chosen."""
        return [t for t in self.trials if t.finite and t.complete]

    def _named(self, tried: SettingResult) -> dict[str, float]:
        return dict(zip(self.composition.domains, tried.coefficients, strict=True))

    def _only(self, what: str, found: Mapping[str, _T]) -> _T:
        if len(found) > 1:
            raise SelectionError(
                f"a selection of several domains has several {what}s",
                found=f"domains {list(found)}",
                expected="one domain",
                do=f"selection.{what}s[{next(iter(found))!r}]",
            )
        return next(iter(found.values()))

    def _at(self, tried: SettingResult) -> str:
        at = ", ".join(f"{d}={c:g}" for d, c in self._named(tried).items())
        return f"{tried.name} {at}".strip()

    def _lead(self, second: SettingResult) -> str:
        """Return the number by which the runner-up loses."""
        if second.objective != self.best.objective:
            return f"objective {second.objective:.4g}"
        if second.accuracy != self.best.accuracy:
            both = f"{second.accuracy:.4g} for {self.best.accuracy:.4g}"
            return f"the same objective and mean accuracy {both}"
        return f"the same accuracies and likelihood {second.likelihood:.4g}"


def _cost(tried: SettingResult) -> str:
    return "" if tried.kl is None else f" at KL {tried.kl:.3g}"
