"""Stage `search`: a setting for each of the 27 combinations, from the search questions alone.

Each knob is measured alone at a few coefficients. Log-probabilities are then predicted everywhere
as if the effects of the knobs added up, the best predicted settings are measured, and where one
falls short its error corrects the next prediction. A combination gets the best measured setting.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from notebooks.study.levels.data import DOMAINS
from notebooks.study.levels.scores import (
    COMBINATIONS,
    Setting,
    Table,
    Tables,
    Wanted,
    lead,
    share,
)

LEVEL = ("avoidance", "generic")  # ends the name of a knob that prefers this level
AXIS = (-3.0, -2.0, -1.0, 1.0)  # expert answers, at the upper end, are the likeliest at 0 already
UPWARDS = (-1.0, 1.0, 2.0)  # of a knob with a level of its own
SOFT = 0.2  # nats of lead at which a question counts as 73% reached
ROUNDS = 2
NOISE = 0.08  # standard error of a share of 30 questions
PROMISING = -3.0  # log-probability of reaching all levels from which on a setting is measured
Measured = dict[tuple[float, ...], Tables]  # by the coefficients of all knobs
Measure = Callable[[Sequence[Setting]], Iterator[Tables]]


@dataclass(frozen=True, eq=False)
class Effects:
    """What was measured, and what it predicts.

    Args:
        knobs: Names of the knobs: a domain each, or a domain and a level.
        measured: Tables by setting, at least the unsteered one and the axes.
    """

    knobs: tuple[str, ...]
    measured: Measured

    @property
    def base(self) -> Tables:
        """The tables at λ = 0."""
        return self.measured[(0.0,) * len(self.knobs)]

    def predicted(self, domain: str, options: Sequence[Sequence[float]]) -> Tensor:
        """Return tables under all combinations of options, one axis for each knob.

        Args:
            domain: Where.
            options: The coefficients to try of each knob.
        """
        total = self.base[domain]
        for k, tried in enumerate(options):
            own = torch.stack([self._effect(k, domain, c) for c in tried])
            axes = [1] * k + [len(own)] + [1] * (len(self.knobs) - 1 - k)
            total = total + own.reshape(*axes, *own.shape[1:])
        return total

    def _effect(self, knob: int, domain: str, c: float) -> Table:
        """Return what one knob changes, linear between the coefficients that were measured."""
        known = sorted(row[knob] for row in self.measured if not any(row[:knob] + row[knob + 1 :]))
        low = max([x for x in known if x <= c], default=known[0])
        high = min([x for x in known if x >= c], default=known[-1])
        tables = [
            self.measured[tuple(x if k == knob else 0.0 for k in range(len(self.knobs)))][domain]
            for x in (low, high)
        ]
        part = 0.0 if high == low else (c - low) / (high - low)
        return (1 - part) * tables[0] + part * tables[1] - self.base[domain]


def axes(knobs: Sequence[str]) -> Iterator[tuple[float, ...]]:
    """Yield the unsteered setting, and each knob alone."""
    yield (0.0,) * len(knobs)
    for k, name in enumerate(knobs):
        for c in UPWARDS if name.endswith(LEVEL) else AXIS:
            yield tuple(c if j == k else 0.0 for j in range(len(knobs)))


def search(knobs: tuple[str, ...], known: Measured, measure: Measure) -> None:
    """Measure what the search asks for; `known` holds what was measured, and grows.

    Args:
        knobs: Names of the knobs.
        known: Tables by setting.
        measure: Measures some settings on the search questions, in order.
    """

    def ask(settings: Iterable[tuple[float, ...]]) -> None:
        new = [row for row in dict.fromkeys(settings) if row not in known]
        for row, found in zip(
            new, measure([dict(zip(knobs, r, strict=True)) for r in new]), strict=True
        ):
            known[row] = found

    ask(axes(knobs))
    options = [options_of(name, len(knobs)) for name in knobs]
    for _ in range(ROUNDS):
        effects = Effects(knobs, known)
        tables = {domain: effects.predicted(domain, options) for domain in DOMAINS}
        chosen = []
        for wanted in COMBINATIONS:
            best, good = best_of(effects.base, known, wanted)
            if good:
                continue
            at = tuple(own.index(c) for own, c in zip(options, best, strict=True))
            corrected = {d: tables[d] + (known[best][d] - tables[d][at]) for d in DOMAINS}
            goal = _goal(effects.base, corrected, wanted)
            place = torch.unravel_index(goal.argmax(), goal.shape)
            if float(goal[place]) > PROMISING:
                chosen.append(tuple(own[k] for own, k in zip(options, place, strict=True)))
        ask(chosen)


def options_of(knob: str, knobs: int) -> list[float]:
    """Return the coefficients at which a knob is tried in predictions."""
    if knob.endswith(LEVEL):
        return [k / 2 for k in range(-2, 5)]
    steps = 4 if knobs <= len(DOMAINS) else 2
    return [k / steps for k in range(-3 * steps, steps + 1)]


def best_of(base: Tables, known: Measured, wanted: Wanted) -> tuple[tuple[float, ...], bool]:
    """Return the best measured setting of a combination, and whether it reaches it there."""
    rows = list(known)
    tables = {d: torch.stack([known[row][d] for row in rows]) for d in DOMAINS}
    good = torch.tensor([_there(base, known[row], wanted) for row in rows])
    goal = _goal(base, tables, wanted)
    place = int(torch.where(good, goal, goal - 1e6).argmax())
    return rows[place], bool(good[place])


def _there(base: Tables, now: Tables, wanted: Wanted) -> bool:
    """Return whether each share is above one half and, if it was so at λ = 0, no less than there."""
    pairs = (
        (share(now[d], level), share(base[d], level))
        for d, level in zip(DOMAINS, wanted, strict=True)
    )
    return all(n.value > 0.5 and (b.value <= 0.5 or n.hits >= b.hits) for n, b in pairs)


def _goal(base: Tables, tables: Tables, wanted: Wanted) -> Float[Tensor, "*setting"]:
    """Return a log-probability that each share is as high as it must be, soft shares ± noise."""
    total = torch.zeros(())
    for domain, level in zip(DOMAINS, wanted, strict=True):
        start = _soft(base[domain], level)
        need = start if share(base[domain], level).value > 0.5 else torch.tensor(0.5)
        total = total + torch.special.log_ndtr((_soft(tables[domain], level) - need) / NOISE)
    return total


def _soft(table: Tensor, level: str) -> Float[Tensor, "*setting"]:
    return torch.sigmoid(lead(table, level) / SOFT).mean(dim=-1)
