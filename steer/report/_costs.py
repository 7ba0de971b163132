"""What settings reach against what they cost."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from steer.selection import Selection
from steer.selection._setting import front
from steer.show import Chart, Curves, Row, Series
from steer.view import View

_OBJECTIVE = "preference accuracy"


@dataclass(frozen=True, slots=True)
class Cost:
    """One setting: its name, KL in nats per response token, and objective."""

    setting: str
    kl: float
    objective: float


@dataclass(frozen=True, slots=True, repr=False)
class Costs(View):
    """Settings with what they reach and what they cost.

    Args:
        settings: All of them, one at least.
        chosen: Number of the one chosen, if one was.
        budget: The most KL that was allowed, nats per response token.
        objective: What is to be large.
    """

    settings: tuple[Cost, ...]
    chosen: int | None = None
    budget: float | None = None
    objective: str = _OBJECTIVE

    @property
    def rows(self) -> list[Row]:
        """One row per setting."""
        front = set(self.front)
        return [
            {
                "setting": cost.setting,
                "KL": cost.kl,
                self.objective: cost.objective,
                "on the front": "yes" if cost in front else "",
                "chosen": "yes" if k == self.chosen else "",
            }
            for k, cost in enumerate(self.settings)
        ]

    @property
    def front(self) -> tuple[Cost, ...]:
        """Settings to which no other is as good in both objective and KL, by rising KL."""
        return tuple(self.settings[k] for k in front([(c.kl, c.objective) for c in self.settings]))

    @property
    def measured(self) -> bool:
        """Whether the KL of any setting is known."""
        return any(math.isfinite(cost.kl) for cost in self.settings)

    @property
    def panels(self) -> Mapping[str, Chart]:
        """Objective against KL, with the front, the budget and the chosen setting."""
        tried, best = (_points(costs) for costs in (self.settings, self.front))
        series = {
            "tried": Series(tried, joined=False, hue=5),
            "Pareto front": Series(best, hue=2),
        }
        if self.chosen is not None:
            series["chosen"] = Series(_points((self.settings[self.chosen],)), hollow=True, hue=1)
        limit = "" if self.budget is None else f"budget {self.budget:g}"
        along = "KL(steered‖unsteered) on neutral text, nats per token"
        return {
            "costs": Curves(
                self.objective, along, series, marked=self.budget, marked_name=limit, root=True
            )
        }


def costs_of(selection: Selection) -> Costs:
    """Return the settings that a selection measured.

    Args:
        selection: What `steer.select` returned.
    """
    domains = selection.composition.domains
    tried = [
        Cost(
            f"{t.name} " * bool(t.name)
            + ", ".join(f"{d}={c:.4g}" for d, c in zip(domains, t.coefficients, strict=True)),
            math.nan if t.kl is None else t.kl,
            t.objective,
        )
        for t in selection.trials
    ]
    at = selection.trials.index(selection.best)
    return Costs(tuple(tried), at, selection.limits.kl, "objective")


def _points(costs: tuple[Cost, ...]) -> tuple[tuple[float, float], ...]:
    """Return KL and objective of settings where both are finite."""
    found = ((cost.kl, cost.objective) for cost in costs)
    return tuple(point for point in found if all(map(math.isfinite, point)))
