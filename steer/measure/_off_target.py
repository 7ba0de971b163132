"""What each vector does to each domain: the matrix of steered against affected."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steer._progress import progress_bar
from steer.algebra import CoefficientsLike, as_composition
from steer.algebra._coefficients import coefficient_rows
from steer.algebra._composition import Steerable
from steer.errors import SelectionError
from steer.measure._data import pairs_by_domain
from steer.measure._estimate import Estimate, mean_of
from steer.measure._interval import ShareChange
from steer.measure._judge.protocol import Judge
from steer.measure._judge.result import Judged, check_wanted, judge_answers
from steer.measure._preference import Preference
from steer.measure._reduce import Reduce
from steer.measure._scores import preferences
from steer.model import Model, check_model
from steer.pairs import Pairs
from steer.show import Result, Row

By = Literal["accuracy", "margin", "judged"]
Change = ShareChange | Estimate
Cell = tuple[str | None, str]  # the domain steered, None for none, and the one measured on


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class OffTarget(Result):
    """The change on each domain when one vector alone is at work.

    Args:
        coefficients: The coefficient of each steered domain, dimensionless.
        preferences: Preference by `(steered, affected)`; `(None, affected)` is unsteered.
        judged: Judged answers likewise; empty without a judge.
    """

    coefficients: Mapping[str, float]
    preferences: Mapping[Cell, Preference]
    judged: Mapping[Cell, Judged]

    @property
    def steered(self) -> tuple[str, ...]:
        """The steered domains: the rows of the matrix."""
        return tuple(self.coefficients)

    @property
    def affected(self) -> tuple[str, ...]:
        """The domains measured on: its columns."""
        return tuple(affected for steered, affected in self.preferences if steered is None)

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
        if (steered, affected) not in (self.judged if by == "judged" else self.preferences):
            raise SelectionError(
                "there is no such cell",
                found=f"steered {steered!r}, affected {affected!r}, by {by!r}",
                expected=f"of {list(self.steered)} × {list(self.affected)}"
                + ("" if self.judged else ", and nothing was judged"),
                do="name domains that were measured; pass a judge to off_target for 'judged'",
            )
        if by == "judged":
            return self.judged[steered, affected].change_from(self.judged[None, affected])
        before, after = self.preferences[None, affected], self.preferences[steered, affected]
        if by == "accuracy":
            return ShareChange.of(before.hits, after.hits)
        return mean_of("change of margin", after.margins - before.margins)

    def again(self, judge: Judge | Mapping[str, Judge], *, give_up: bool = False) -> "OffTarget":
        """Return the same with those answers judged again that got no verdict.

        Args:
            judge: The judge, or one for each domain of the data.
            give_up: Whether an answer that fails again counts as undecided, with the reason.

        Raises:
            SelectionError: A domain has no judge.
        """
        judges = _each_domain(judge, self.affected, "judge")
        again = {at: j.again(judges[at[1]], give_up=give_up) for at, j in self.judged.items()}
        return replace(self, judged=again)

    def matrix(self, by: By = "accuracy") -> Float[Tensor, "domain affected"]:
        """Return every change (see `change`) as numbers: steered domains down, affected across."""
        return torch.tensor(
            [[self.change(s, a, by).value for a in self.affected] for s in self.steered],
            dtype=torch.float64,
        )

    def worst(self, by: By = "accuracy") -> Change:
        """Return the greatest change (see `change`), up or down, on a domain that was not steered.

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
        return max((self.change(s, a, by) for s, a in cells), key=lambda found: abs(found.value))

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
        reduce = next(iter(self.preferences.values())).reduce
        names: dict[By, str] = {
            "accuracy": f"change of preference accuracy ({reduce} log-probability)",
            "margin": f"change of margin in nats ({reduce} log-probability)",
            **({"judged": "change of judged accuracy or score"} if self.judged else {}),
        }
        return [
            {"steered": s, "coefficient": c, "affected": a, **self._row(s, a, by), "measure": name}
            for s, c in self.coefficients.items()
            for a in self.affected
            for by, name in names.items()
        ]

    def _row(self, steered: str, affected: str, by: By) -> Row:
        if by == "judged":
            before, after = self.judged[None, affected], self.judged[steered, affected]
            if not after.comparable(before):
                return dict.fromkeys(("measure", "value", "low", "high")) | {
                    "n": len(after.answers)
                }
        return self.change(steered, affected, by).rows[0]


def off_target(
    model: Model,
    what: Steerable,
    data: Pairs | Mapping[str, Pairs],
    coefficients: CoefficientsLike | None = None,
    *,
    judge: Judge | Mapping[str, Judge] | None = None,
    wanted: str | Mapping[str, str] | None = None,
    reduce: Reduce = "mean",
    progress: bool = True,
    **options: Any,
) -> OffTarget:
    """Measure what each vector, alone at its coefficient, changes on each domain.

    Args:
        model: The model; it must not be steered.
        what: A composition, vectors by domain, or one vector; a gate is kept.
        data: Pairs that name their domains, or pairs by domain. Domains without a vector are
            measured on too.
        coefficients: One for all, or by domain, dimensionless; by default the composition's own.
        judge: A judge of generated answers, or one for each domain of the data.
        wanted: The label wanted, or one for each domain; None for a judge that gives scores.
        reduce: Score answers by the mean or the sum of their tokens' log-probabilities.
        progress: Whether to show a progress bar.
        **options: As for `model.generate`, for judged answers.

    Returns:
        The matrix, with intervals.

    Raises:
        SteeringError: The model is being steered.
        SelectionError: A domain without pairs or without judge, coefficients by row, or a label
            wanted that the judge cannot give.
        CompositionError: An unknown domain, or a coefficient that cannot be used.
    """
    composition = as_composition(what)
    check_model(model, "off_target")
    parts = pairs_by_domain(data)
    own = composition.coefficients
    if coefficients is not None:
        own, _ = coefficient_rows(coefficients, composition.domains)
    if len(own) != 1:
        raise SelectionError(
            "each vector is measured at one coefficient",
            found=f"{len(own)} rows of coefficients",
            expected="one",
            do="pass a number, or one by domain",
        )
    judges = {} if judge is None else _each_domain(judge, parts, "judge")
    labels = dict.fromkeys(parts) if wanted is None else _each_domain(wanted, parts, "label")
    for on in judges:
        check_wanted(judges[on], labels[on], len(parts[on]))
    settings = torch.cat([torch.zeros_like(own), torch.diag(own[0])])
    rows = dict(zip([None, *composition.domains], settings.tolist(), strict=True))
    knobs = [(composition, tuple(row)) for row in rows.values()]
    found = preferences(model, knobs, parts, reduce, progress=progress)
    asked = {on: [pair.prompt for pair in part] for on, part in parts.items()}
    answers: dict[Cell, list[str]] = {}
    if judges:
        for name, row in progress_bar(rows.items(), progress=progress, desc="answers"):
            with model.steered(composition, row):
                texts = iter(model.generate([p for own in asked.values() for p in own], **options))
            answers |= {(name, on): [next(texts) for _ in own] for on, own in asked.items()}
    return OffTarget(
        dict(zip(composition.domains, own[0].tolist(), strict=True)),
        {(name, on): x for name, by in zip(rows, found, strict=True) for on, x in by.items()},
        {
            (name, on): judge_answers(judges[on], asked[on], texts, wanted=labels[on])
            for (name, on), texts in answers.items()
        },
    )


def _each_domain(value: Any, parts: Iterable[str], what: str) -> dict[str, Any]:
    """Return one value for each domain of the data, if one was given or one for all."""
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
