"""The matrix of steered against affected domains: what each vector changes on each."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steer.errors import SelectionError
from steer.evaluate.estimate import Estimate, mean_of
from steer.evaluate.interval import ShareChange
from steer.evaluate.judge.change import has_change, judged_change
from steer.evaluate.judge.protocol import Judge
from steer.evaluate.judge.result import Judged
from steer.evaluate.preference import Preference
from steer.evaluate.table import Row, Tabled

By = Literal["accuracy", "margin", "judged"]
Change = ShareChange | Estimate
Cell = tuple[str, str]


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class OffTarget(Tabled):
    """The change on each domain when one vector alone is at work.

    Args:
        coefficients: The coefficient of each steered domain, dimensionless.
        before: Preference of the unsteered model on each affected domain.
        after: Preference by `(steered, affected)`.
        judged_before: Judged answers of the unsteered model; empty without a judge.
        judged_after: Judged answers by `(steered, affected)`.
    """

    coefficients: Mapping[str, float]
    before: Mapping[str, Preference]
    after: Mapping[Cell, Preference]
    judged_before: Mapping[str, Judged]
    judged_after: Mapping[Cell, Judged]

    @property
    def steered(self) -> tuple[str, ...]:
        """The steered domains: the rows of the matrix."""
        return tuple(self.coefficients)

    @property
    def affected(self) -> tuple[str, ...]:
        """The domains measured on: its columns."""
        return tuple(self.before)

    def change(self, steered: str, affected: str, by: By = "accuracy") -> Change:
        """Return what one vector changes on one domain, item by item.

        Args:
            steered: The domain whose vector is at work.
            affected: The domain measured on.
            by: Preference `accuracy`, mean preference `margin` in nats, or the `judged` share (or
                score).

        Raises:
            SelectionError: There is no such cell, or nothing was judged that can be compared.
            JudgeError: Some answers were not judged: see `again`.
        """
        known = self.judged_after if by == "judged" else self.after
        if (steered, affected) not in known:
            raise SelectionError(
                "there is no such cell",
                found=f"steered {steered!r}, affected {affected!r}, by {by!r}",
                expected=f"of {list(self.steered)} × {list(self.affected)}"
                + ("" if self.judged_after else ", and nothing was judged"),
                do="name domains that were measured; pass a judge to off_target for 'judged'",
            )
        if by == "judged":
            return judged_change(self.judged_before[affected], self.judged_after[steered, affected])
        before, after = self.before[affected], self.after[steered, affected]
        if by == "accuracy":
            return ShareChange.of(before.hits, after.hits)
        return mean_of("change of margin", after.margins - before.margins)

    def again(self, judge: Judge | Mapping[str, Judge], *, give_up: bool = False) -> "OffTarget":
        """Return the same with those answers judged again that the judge was not heard about.

        Args:
            judge: The judge, or one for each domain of the data.
            give_up: Whether what fails again counts as undecided; its reply then says why.

        Raises:
            SelectionError: A domain has no judge.
        """
        judges = each_domain(judge, self.affected, "judge")
        before = {
            on: found.again(judges[on], give_up=give_up) for on, found in self.judged_before.items()
        }
        after = {
            at: found.again(judges[at[1]], give_up=give_up)
            for at, found in self.judged_after.items()
        }
        return replace(self, judged_before=before, judged_after=after)

    def matrix(self, by: By = "accuracy") -> Float[Tensor, "domain affected"]:
        """Return every change as numbers: steered domains down, affected domains across.

        Args:
            by: See `change`.

        Raises:
            SelectionError: Nothing was judged.
        """
        return torch.tensor(
            [[self.change(s, a, by).value for a in self.affected] for s in self.steered],
            dtype=torch.float64,
        )

    def worst(self, by: By = "accuracy") -> Change:
        """Return the greatest change, up or down, on a domain that was not steered.

        Args:
            by: See `change`.

        Raises:
            SelectionError: No domain was measured on beside the steered one, or nothing judged.
        """
        cells = [(s, a) for s in self.steered for a in self.affected if s != a]
        if not cells:
            raise SelectionError(
                "there is no effect off target",
                found=f"steered {list(self.steered)}, affected {list(self.affected)}",
                expected="data of another domain than the steered one",
                do="measure on several domains",
            )
        changes = [self.change(s, a, by) for s, a in cells]
        return max(changes, key=lambda change: abs(change.value))

    @property
    def value(self) -> float:
        """The greatest change of preference accuracy on a domain that was not steered."""
        return self.worst().value

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of that change, without a correction for its being the greatest."""
        return self.worst().interval

    @property
    def rows(self) -> list[Row]:
        """One row per steered domain, affected domain and measure.

        A judged change is left empty where neither a label is wanted nor scores were given, or
        where some answers were not judged: see `again`.
        """
        return list(self._rows())

    def _rows(self) -> Iterator[Row]:
        reduce = next(iter(self.before.values())).reduce
        names: dict[By, str] = {
            "accuracy": f"change of preference accuracy ({reduce} log-probability)",
            "margin": f"change of margin in nats ({reduce} log-probability)",
        }
        if self.judged_after:
            names["judged"] = "change of judged accuracy or score"
        for steered, c in self.coefficients.items():
            for affected in self.affected:
                for by, name in names.items():
                    found = self._row(steered, affected, by) | {"measure": name}
                    yield {"steered": steered, "coefficient": c, "affected": affected, **found}

    def _row(self, steered: str, affected: str, by: By) -> Row:
        if by == "judged":
            before, after = self.judged_before[affected], self.judged_after[steered, affected]
            if not has_change(before, after):
                empty = dict.fromkeys(("value", "low", "high"))
                return {"measure": "", **empty, "n": len(after.answers)}
        return self.change(steered, affected, by).rows[0]


def each_domain(value: Any, parts: Iterable[str], what: str) -> dict[str, Any]:
    """Return one value for each domain of the data.

    Args:
        value: A value for all, or one by domain.
        parts: The domains.
        what: What it is, for the error.

    Raises:
        SelectionError: A domain has none.
    """
    if not isinstance(value, Mapping):
        return dict.fromkeys(parts, value)
    if missing := [name for name in parts if name not in value]:
        raise SelectionError(
            f"a domain of the data has no {what}",
            found=f"none for {missing}",
            expected=f"one for each of {list(parts)}",
            do="add it, or pass one for all",
        )
    return dict(value)
