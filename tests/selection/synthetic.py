"""Searches without a model: numbers made up from the coefficients."""

from collections.abc import Callable, Sequence

import torch

import steer
from steer.selection import Field, Limits, SettingResult
from steer.selection._candidates import Candidate

VALUES = tuple(k / 10 for k in range(-10, 11))
CANDIDATE = Candidate("", steer.compose(a=steer.Vector.of({0: torch.ones(2)})))


def tried(
    c: tuple[float, ...], accuracies: Sequence[float], kl: float | None = None
) -> SettingResult:
    measured = {str(k): {"accuracy": a} for k, a in enumerate(accuracies)}
    return SettingResult(c, min(accuracies), measured, sum(accuracies) / len(accuracies), kl=kl)


def peak(c: tuple[float, ...]) -> SettingResult:
    """Two near-parallel knobs that are asked for opposite things, in steps of 1/20; KL is ‖c‖²."""
    a = 0.9 - abs(c[0] + 0.7 * c[1] - 0.3)
    b = 0.9 - abs(c[1] + 0.7 * c[0] + 0.2)
    return tried(c, (round(a * 20) / 20, round(b * 20) / 20), sum(x * x for x in c))


class Counted:
    """Measures settings, and remembers which, and how many at a time."""

    def __init__(self, one: Callable[[tuple[float, ...]], SettingResult] = peak) -> None:
        self.one = one
        self.seen: list[tuple[float, ...]] = []
        self.calls = 0

    def __call__(self, tries: Sequence[tuple[Candidate, tuple[float, ...]]]) -> list[SettingResult]:
        self.seen += [row for _, row in tries]
        self.calls += 1
        return [self.one(row) for _, row in tries]


def field(
    measure: Counted,
    *,
    limits: Limits | None = None,
    seed: int = 0,
    budget: int | None = None,
    domains: int = 2,
) -> Field:
    grid = (VALUES,) * domains
    return Field([CANDIDATE], grid, measure, limits or Limits(), seed=seed, budget=budget)
