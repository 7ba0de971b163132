"""A report that measures what it shows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from steer._check import as_seed, integer
from steer._progress import progress_bar
from steer.algebra import Composition, as_composition, get_operator
from steer.algebra._composition import Steerable
from steer.errors import CompositionError, SelectionError
from steer.extract._positions import is_position
from steer.measure import (
    NEUTRAL_PROMPTS,
    Baselines,
    NeutralText,
    Reliability,
    Sweep,
    neutral_text,
    off_target,
    sweep,
)
from steer.measure import baselines as measure_baselines
from steer.measure import reliability as measure_reliability
from steer.measure._reduce import Reduce
from steer.measure._side_effects import SideEffects
from steer.model import Model, check_model
from steer.pairs import Pairs, Prompt, as_pairs
from steer.report._costs import Cost, Costs
from steer.report._examples import Examples
from steer.report._page import Report
from steer.report._sections import Section, sections_of
from steer.report._setup import Setup
from steer.selection import Selection
from steer.selection._pairs import named

_POINTS = 9  # coefficients of a dose-response
_SHOTS = 2  # pairs of a domain that the prompted baseline shows


def report(
    model: Model,
    what: Steerable,
    data: Pairs | Mapping[str, Pairs],
    *,
    train: Pairs | None = None,
    instruction: str | None = None,
    coefficients: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    kl_budget: float | None = None,
    neutral: Sequence[Prompt] | NeutralText = NEUTRAL_PROMPTS,
    tuned: Model | None = None,
    examples: int = 3,
    reduce: Reduce = "mean",
    seed: int = 0,
    title: str = "Steering report",
    progress: bool = True,
    **options: Any,
) -> Report:
    """Measure a steered model and put everything on one page.

    Dose-response of each domain's coefficient on each domain; side effects; the effect of each
    vector on each domain; baselines; reliability of residual vectors; answers side by side.

    Args:
        model: The model; it must not be steered.
        what: What `select` returned, which is shown as well; or a composition at its
            coefficients, a vector, or vectors by domain.
        data: Pairs that name their domains, or pairs by domain, that nothing was made from or
            chosen on. Domains without a vector are measured on too.
        train: The pairs that the vectors were made from: reliability is that of these, and two of
            each domain are shown by the prompted baseline. Without them reliability is that of
            `data`, and the first two pairs of each domain are shown and not measured on.
        instruction: System message of the prompted baseline, instead of pairs.
        coefficients: Values to try for every domain, or by domain, dimensionless; by default nine
            from −1 to 1, or as far as the composition's own.
        kl_budget: Limit to draw, nats per response token; by default that of the choice.
        neutral: Prompts of no domain, or neutral text prepared by `neutral_text`, for KL.
        tuned: A preference-tuned model to compare with.
        examples: Prompts of each domain whose answers are shown.
        reduce: Score answers by the mean or the sum of their tokens' log-probabilities.
        seed: Of the random directions: this one and the next two.
        title: The report's heading.
        progress: Whether to show a progress bar.
        **options: As for `model.generate`, for the answers shown.

    Returns:
        The report.

    Raises:
        SteeringError: The model is being steered.
        ArgumentError: `examples` is negative or not an integer, or the seed is none of 64 bits.
        SelectionError: No pairs of a domain that has a vector, or too few.
        CompositionError: Coefficients that cannot be used.
        FitError: A vector does not fit this model.
    """
    check_model(model, "report")
    integer("examples", examples, least=0, do="pass 0 for none")
    seed = as_seed(seed)
    chosen = what if isinstance(what, Selection) else None
    composition = as_composition(what)
    parts = named(composition, data)
    train = None if train is None else as_pairs(train)
    if instruction is None and train is None:
        shots = {d: part[:_SHOTS] for d, part in parts.items()}
        parts = {d: part[_SHOTS:] for d, part in parts.items()}
    else:
        shots = {d: _pairs_of(train, d)[:_SHOTS] for d in parts}
    _check(composition, parts)
    text = neutral if isinstance(neutral, NeutralText) else neutral_text(model, neutral)
    work = _Work(model, composition, parts, shots, train, text, coefficients, reduce, seed)
    steps: list[tuple[str, Callable[[], object]]] = [
        ("dose-response", lambda: work.swept),
        ("side effects", lambda: work.costs(kl_budget)),
        (
            "interference",
            lambda: off_target(model, composition, parts, reduce=reduce, progress=False),
        ),
        ("baselines", lambda: work.baselines(instruction, tuned)),
        ("reliability", work.reliability),
        ("examples", lambda: work.examples(examples, options)),
    ]
    if chosen is not None:
        steps[1] = ("choice", lambda: chosen)
    found: list[Section] = []
    with progress_bar(steps, progress=progress) as bar:
        for name, measure in bar:
            bar.set_description(name)
            result = measure()
            if result:
                found += sections_of(result)
    facts = {"score": f"{reduce} log-probability", "seed": seed, "neutral texts": len(text.prompts)}
    used = dict(parts) | ({"train": train} if train else {})
    setup = Setup(model.info, composition, used, facts | options)
    return Report(title, (*found, *sections_of(setup)))


@dataclass(frozen=True, eq=False)
class _Work:
    """What is measured for a report."""

    model: Model
    composition: Composition
    parts: Mapping[str, Pairs]
    shots: Mapping[str, Pairs]
    train: Pairs | None
    text: NeutralText
    coefficients: Sequence[float] | Mapping[str, Sequence[float]] | None
    reduce: Reduce
    seed: int

    @property
    def own(self) -> list[float]:
        """The coefficients that are reported on."""
        return self.composition.coefficients[0].tolist()

    @property
    def moved(self) -> list[str]:
        """Domains that have a vector and pairs."""
        return [name for name in self.composition.domains if name in self.parts]

    @cached_property
    def settings(self) -> list[list[float]]:
        """Each domain turned alone, and last the setting reported on."""
        zero = [0.0] * len(self.own)
        turned = (
            [*zero[:k], float(value), *zero[k + 1 :]]
            for k, name in enumerate(self.composition.domains)
            for value in self._values(name, self.own[k])
        )
        return list(map(list, dict.fromkeys(map(tuple, [zero, *turned, self.own]))))

    @cached_property
    def swept(self) -> Sweep:
        """Preference accuracy on every domain under every setting."""
        data: Any = self.parts
        return sweep(
            self.model, self.composition, data, self.settings, reduce=self.reduce, progress=False
        )

    def costs(self, budget: float | None) -> Costs:
        """Return worst accuracy and KL of every setting."""
        knobs = [(self.composition, tuple(row)) for row in self.settings]
        found = [
            Cost(
                self._named(row),
                effect.kl,
                min(float(measured[name]["accuracy"]) for name in self.moved),
            )
            for (_, row), effect, measured in zip(
                knobs, SideEffects(self.model, self.text)(knobs), self.swept.measured, strict=True
            )
        ]
        objective = "preference accuracy" + (", worst domain" if len(self.moved) > 1 else "")
        return Costs(tuple(found), self.settings.index(self.own), budget, objective)

    def baselines(self, instruction: str | None, tuned: Model | None) -> dict[str, Baselines]:
        """Return the composition at its coefficients beside its baselines, by domain."""
        return {
            name: measure_baselines(
                self.model,
                self.composition,
                self.parts[name],
                instruction=instruction,
                shots=self.shots[name],
                seeds=range(self.seed, self.seed + 3),
                tuned=tuned,
                reduce=self.reduce,
                progress=False,
            )
            for name in self.moved
        }

    def reliability(self) -> dict[str, Reliability]:
        """Return how much the pairs of each residual vector agree, where it was read and acts."""
        found = {}
        for name in self.moved:
            vector = self.composition.parts[name].vector
            if vector.layers:
                pairs = _pairs_of(self.train, name) or self.parts[name]
                position = str(vector.provenance.arguments.get("position", "response_mean"))
                at = position if is_position(position) else "response_mean"
                found[name] = measure_reliability(
                    self.model, pairs, at, layers=vector.layers, progress=False
                )
        return found

    def examples(self, count: int, options: Mapping[str, Any]) -> Examples | None:
        """Return answers at shares of the coefficients reported on."""
        asked = [pair.prompt for name in self.moved for pair in self.parts[name][:count]]
        if not asked:
            return None
        signed = all(_signed(part.operator) for part in self.composition.parts.values())
        found = {}
        for share in (-1.0, -0.5, 0.0, 0.5, 1.0) if signed else (0.0, 0.5, 1.0):
            row = [share * c for c in self.own]
            with self.model.steered(self.composition, row):
                texts = tuple(self.model.generate(asked, **options))
            found[self._named(row) if any(row) else "unsteered"] = texts
        return Examples(tuple(asked), found)

    def _values(self, name: str, own: float) -> Sequence[float]:
        if isinstance(self.coefficients, Mapping):
            return self.coefficients.get(name, ())
        if self.coefficients is not None:
            return self.coefficients
        far = max(1.0, abs(own))
        low = -far if _signed(self.composition.parts[name].operator) else 0.0
        return [low + (far - low) * k / (_POINTS - 1) for k in range(_POINTS)]

    def _named(self, row: Sequence[float]) -> str:
        pairs = zip(self.composition.domains, row, strict=True)
        return ", ".join(f"{name} {c:+.3g}" for name, c in pairs if c) or "none"


def _signed(operator: str) -> bool:
    """Return whether an operator takes coefficients below 0."""
    try:
        get_operator(operator).check(torch.tensor([[-1.0]]))
    except CompositionError:
        return False
    return True


def _pairs_of(pairs: Pairs | None, domain: str) -> Pairs:
    """Return the pairs of a domain; all where none names one, none where there are none."""
    if pairs is None or not pairs.domains:
        return pairs or Pairs.of([])
    return pairs.of_domain(domain) if domain in pairs.domains else Pairs.of([])


def _check(composition: Composition, parts: Mapping[str, Pairs]) -> None:
    """Refuse a report on several rows of coefficients, or on no pairs."""
    rows = composition.coefficients
    empty = [name for name, part in parts.items() if not len(part)]
    if len(rows) != 1 or empty or not set(composition.domains) & set(parts):
        raise SelectionError(
            "there is nothing to report on",
            found=f"{len(rows)} rows of coefficients, vectors of {list(composition.domains)}, "
            f"pairs of {list(parts)}, none left of {empty}",
            expected="one row, and pairs of a domain that has a vector: three of each, or "
            "pass train or an instruction",
            do="name pairs and vectors alike, and pass more pairs",
        )
