"""What settings reach against what they cost."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from steer.selection._setting import front
from steer.selection._show import cost_chart
from steer.show import Chart, Row
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
        points = [(cost.kl, cost.objective) for cost in self.settings]
        return {"costs": cost_chart(self.objective, points, self.chosen, self.budget)}
