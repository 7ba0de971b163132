"""The result of a sweep: one row for each setting and domain of the data."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, get_args

from steer.errors import SelectionError
from steer.measure._data import Likelihood, Measured
from steer.measure._dose import charts_of
from steer.measure._grid import Setting
from steer.show import Card, Curves, Result
from steer.show._card import number
from steer.show._rows import table_of

_SHOWN = 20  # rows shown
_CHARTS, _READ = 3, 4000  # charts shown, and rows that they are drawn of


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Sweep(Result):
    """The numbers of every setting.

    Args:
        domains: Names of the coefficients.
        settings: The settings, in the order of the grid.
        measured: For each setting and domain of the data, numbers by name.
        measure: What was measured.
        reduce: Whether an answer's score is the mean or the sum of its tokens' log-probabilities.
        way: How likelihoods were computed: `branched`, or `plain` and why; both where layers or
            scopes differ in it; `resumed` where all came from a file.
        fingerprint: Of the whole request.
    """

    domains: tuple[str, ...]
    settings: tuple[Setting, ...]
    measured: tuple[Measured, ...]
    measure: str
    reduce: str
    way: str
    fingerprint: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per setting and domain of the data.

        `layer` and `scope` (None where the composition's own), `coefficient.<domain>`, `on` (the
        domain measured on), and the numbers.
        """
        return [
            {**self._setting(setting), "on": on, **numbers}
            for setting, measured in zip(self.settings, self.measured, strict=True)
            for on, numbers in measured.items()
        ]

    def best(self, by: str | None = None) -> dict[str, Any]:
        """Return the setting that is best on the domain where it is worst.

        Ties go to the greater mean, then to the smaller sum of squared coefficients. Settings
        without a finite number on each domain do not count.

        Args:
            by: The number to compare; `accuracy` by default, else the first measured.

        Returns:
            `layer`, `scope`, `coefficient.<domain>`, and the number on each domain.

        Raises:
            SelectionError: No such number was measured, or it is nowhere finite.
        """
        names = list(next(iter(self.measured[0].values())))
        by = by or ("accuracy" if "accuracy" in names else next(n for n in names if n != "n"))
        if by not in names:
            raise SelectionError(
                "the sweep did not measure this",
                found=repr(by),
                expected=" | ".join(names),
                do="name one of these",
            )
        values = {k: [x[by] for x in found.values()] for k, found in enumerate(self.measured)}
        finite = [k for k, numbers in values.items() if all(map(math.isfinite, numbers))]
        if not finite:
            raise SelectionError(
                f"at no setting is {by!r} finite on every domain",
                found=f"{len(self)} settings with NaN",
                expected="at least one without",
                do="sweep smaller coefficients",
            )

        def rank(k: int) -> tuple[float, float, float]:
            size = sum(c * c for c in self.settings[k].coefficients)
            return min(values[k]), sum(values[k]), -size

        k = max(finite, key=rank)
        return {
            **self._setting(self.settings[k]),
            by: dict(zip(self.measured[k], values[k], strict=True)),
        }

    @property
    def charts(self) -> list[Curves]:
        """What each number does as the coefficient of one domain is turned alone."""
        return list(charts_of(self.rows, self.domains))

    def _setting(self, setting: Setting) -> dict[str, Any]:
        named = zip(self.domains, setting.coefficients, strict=True)
        found = {f"coefficient.{domain}": c for domain, c in named}
        return {"layer": setting.layer, "scope": setting.scope, **found}

    def __len__(self) -> int:
        return len(self.settings)

    def _card(self) -> Card:
        likelihood = self.measure in get_args(Likelihood)
        how = f" ({self.reduce} log-probability)" if likelihood else ""
        said = f"Sweep of {len(self)} settings: {self.measure}{how}, {self.way}"
        rows = self.rows
        if not rows:
            return Card(said)
        facts = [("domains", ", ".join(self.domains))]
        names = {name for numbers in self.measured[0].values() for name in numbers}
        if "accuracy" in names:  # of which more is better
            with suppress(SelectionError):  # it is finite nowhere
                facts.append(("best", _said(self.best("accuracy"))))
        lost = sum(any(x != x for n in m.values() for x in n.values()) for m in self.measured)
        if lost:
            why = ": the model overflows there" if likelihood else ""
            facts.append(("not finite", f"{lost} settings{why}"))
        charts = islice(charts_of(rows[:_READ], self.domains), _CHARTS)
        return Card(said, tuple(facts), (*charts, table_of(rows, shown=_SHOWN, none="own")))


def _said(best: Mapping[str, Any]) -> str:
    """Return a setting and its accuracies as text."""
    where = {k.removeprefix("coefficient."): v for k, v in best.items() if k != "accuracy"}
    said = [f"{name} {number(value)}" for name, value in where.items() if value is not None]
    reached = (f"{on} {number(value)}" for on, value in best["accuracy"].items())
    return ", ".join([*said, f"accuracy {', '.join(reached)}"])
