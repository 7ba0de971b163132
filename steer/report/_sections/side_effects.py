"""What settings reach against what they cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from steer.report._charts.scatter import scatter
from steer.report._html import figure, numbers, paragraph
from steer.selection import Selection
from steer.selection._setting import front
from steer.show import Result, Row

_OBJECTIVE = "preference accuracy"


@dataclass(frozen=True, slots=True)
class Cost:
    """One setting: its name, KL in nats per response token, and objective."""

    setting: str
    kl: float
    objective: float


@dataclass(frozen=True, slots=True, repr=False)
class Costs(Result):
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
        return front(self.settings)


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


def side_effects(result: Costs) -> str:
    """Return the picture of objective against KL, with budget, front and choice.

    Args:
        result: The settings.
    """
    if all(math.isnan(cost.kl) for cost in result.settings):
        return paragraph("KL was not measured.") + numbers(result.rows)
    chosen = None if result.chosen is None else _place(result.settings[result.chosen])
    picture = scatter(
        _places(result.settings),
        _places(result.front),
        chosen,
        result.budget,
        "KL(steered‖unsteered) on neutral text, nats per token",
        result.objective,
    )
    caption = f"{len(result.settings)} settings; those on the front are bettered by no other"
    front = [row for row in result.rows if row["on the front"] or row["chosen"]]
    front.sort(key=lambda row: float(row["KL"]))
    return figure(picture, caption) + numbers(front)


def chosen_side_effects(result: Selection) -> str:
    """Return the same picture of what a selection tried.

    Args:
        result: What `steer.select` returned.
    """
    return side_effects(costs_of(result))


def _places(costs: Sequence[Cost]) -> list[tuple[float, float]]:
    return [_place(cost) for cost in costs]


def _place(cost: Cost) -> tuple[float, float]:
    return cost.kl, cost.objective
