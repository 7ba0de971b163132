"""The result of one setting, the limits on its side effects, and the order of results."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

from steer._check import number

Numbers = Mapping[str, float]
Objective = Callable[[Mapping[str, Numbers]], float]
Rank = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SettingResult:
    """The measurements of one setting on the validation pairs.

    Args:
        coefficients: One for each domain, dimensionless.
        objective: The number to maximise; NaN where the model overflows.
        measured: For each domain of the pairs: `n`, `accuracy` with `low` and `high`, `margin`,
            `likelihood` (mean score of the chosen answers), in nats.
        accuracy: Mean accuracy over the domains that are asked to move, in [0, 1].
        off_target: Largest drop of accuracy on the other domains; None if there is none.
        kl: KL(steered‖unsteered) on neutral text, nats per response token; None if not measured.
        perplexity: Perplexity there, as a factor of the unsteered model's; likewise.
        candidate: Name of the candidate, for instance its position; empty for a composition.
        layer: Its one layer; None where it acts at several, or on weights.
        complete: Whether all pairs and side effects were measured; in the heats of a race they
            are not, and such a setting is never chosen.
        kl_error: Standard error of `kl` over the texts; NaN for one text.
    """

    coefficients: tuple[float, ...]
    objective: float
    measured: Mapping[str, Numbers]
    accuracy: float
    off_target: float | None = None
    kl: float | None = None
    perplexity: float | None = None
    candidate: str = ""
    layer: int | None = None
    complete: bool = True
    kl_error: float | None = None

    @property
    def finite(self) -> bool:
        """Whether the objective is finite and no side effect is NaN; else it is never chosen."""
        costs = [x for x in (self.kl, self.perplexity, self.off_target) if x is not None]
        return math.isfinite(self.objective) and not any(map(math.isnan, costs))

    @property
    def name(self) -> str:
        """The candidate and its layer, in words."""
        return label(self.candidate, self.layer)

    @property
    def at(self) -> str:
        """The candidate with its layer and coefficients, in words."""
        return f"{self.name} at {', '.join(f'{c:g}' for c in self.coefficients)}".strip()

    @property
    def size(self) -> float:
        """Sum of the squared coefficients."""
        return sum(c * c for c in self.coefficients)

    @property
    def likelihood(self) -> float:
        """Mean score of the preferred answers over all domains, in nats."""
        scores = [numbers.get("likelihood", 0.0) for numbers in self.measured.values()]
        return sum(scores) / len(scores) if scores else 0.0

    def rank(self, violation: float) -> Rank:
        """Return a sort key of settings; greater is better.

        The least violation of the limits comes first, then the objective, then the mean accuracy.
        Accuracy saturates. Ties among alternatives, whose coefficients cannot be compared, go to
        the setting under which the preferred answers are likeliest: too strong a push makes every
        answer unlikely. Ties among settings of a composition go to the smaller coefficients.

        Args:
            violation: By how much it exceeds the limits, at least 0.
        """
        if not self.finite:
            return (*(-math.inf,) * 4, -self.size)
        likelihood = self.likelihood if self.candidate else 0.0
        return -violation, self.objective, self.accuracy, likelihood, -self.size


def label(name: str, layer: int | None) -> str:
    """Return a candidate and its layer in words."""
    return " ".join([name] * bool(name) + [f"layer {layer}"] * (layer is not None))


@dataclass(frozen=True, slots=True)
class Limits:
    """Side effects that a chosen setting must not exceed; None sets no limit.

    Args:
        kl: Most KL(steered‖unsteered) on neutral text, nats per response token.
        perplexity: Most perplexity(steered) / perplexity(unsteered) on the same text, a factor.
        off_target: Most off-target drop, in [0, 1]: over the domains of the held-out pairs that
            are not asked to move, the largest of accuracy(unsteered) − accuracy(steered), and
            0 where no accuracy falls.

    Raises:
        ArgumentError: A limit is negative or no finite number.
    """

    kl: float | None = None
    perplexity: float | None = None
    off_target: float | None = None

    def __post_init__(self) -> None:
        for name in self.names:
            number(f"the limit {name}", getattr(self, name), least=0.0, do=f"Limits({name}=0.5)")

    @property
    def names(self) -> tuple[str, ...]:
        """The limits that are set."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) is not None)

    def excess(self, result: SettingResult) -> dict[str, float]:
        """Return by how much a setting exceeds each limit that is set; at most 0 if it keeps it.

        What was not measured, or is not finite, exceeds it by infinity.

        Args:
            result: What was measured there.
        """
        measured = ((name, getattr(result, name)) for name in self.names)
        known = {n: math.inf if v is None or not math.isfinite(v) else v for n, v in measured}
        return {name: value - getattr(self, name) for name, value in known.items()}

    def violation(self, result: SettingResult) -> float:
        """Return Σ max(0, excess / limit), which is 0 exactly where every limit is kept.

        Args:
            result: What was measured there.
        """
        over = self.excess(result).items()
        return math.fsum(max(0.0, by) / max(getattr(self, name), 1e-9) for name, by in over)


def worst_accuracy(measured: Mapping[str, Numbers]) -> float:
    """Return the preference accuracy of the domain where it is lowest.

    Args:
        measured: Numbers of each domain that is asked to move.
    """
    return min(numbers["accuracy"] for numbers in measured.values())


def front(points: Sequence[tuple[float | None, float]]) -> list[int]:
    """Return which points (KL, objective) no other is as good as in both, by rising KL.

    Of equals the first is kept. Where no KL was measured, it is the best alone.
    """
    costs = [0.0 if kl is None else kl for kl, _ in points]
    found: list[int] = []
    for k in sorted(range(len(points)), key=lambda k: (costs[k], -points[k][1])):
        if costs[k] == costs[k] and (not found or points[k][1] > points[found[-1]][1]):
            found.append(k)
    return found
