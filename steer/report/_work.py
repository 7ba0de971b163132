"""What a report measures, each thing once and only when it is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Composition, get_operator
from steer.errors import CompositionError
from steer.extract._positions import is_position
from steer.measure import Baselines, NeutralText, Reliability, Sweep, sweep
from steer.measure import baselines as measure_baselines
from steer.measure import reliability as measure_reliability
from steer.measure._reduce import Reduce
from steer.model import Model
from steer.pairs import Pairs
from steer.report._costs import Cost, Costs
from steer.report._examples import Examples, answered
from steer.selection._kernel import SideEffects

_POINTS = 9  # coefficients of a dose-response


@dataclass(frozen=True, eq=False)
class Work:
    """What is measured for a report."""

    model: Model
    composition: Composition
    own: Float[Tensor, "row domain"]
    parts: Mapping[str, Pairs]
    shots: Mapping[str, Pairs]
    train: Pairs | None
    text: NeutralText
    coefficients: Sequence[float] | Mapping[str, Sequence[float]] | None
    reduce: Reduce
    seed: int

    @property
    def moved(self) -> list[str]:
        """Domains that have a vector and pairs."""
        return [name for name in self.composition.domains if name in self.parts]

    @cached_property
    def settings(self) -> Float[Tensor, "setting domain"]:
        """Each domain turned alone, and last the setting reported on."""
        rows = [torch.zeros(len(self.composition.domains), dtype=torch.float64)]
        for k, name in enumerate(self.composition.domains):
            for value in self._values(name, float(self.own[0, k])):
                row = rows[0].clone()
                row[k] = value
                rows.append(row)
        table = torch.stack([*rows, self.own[0].to(rows[0])])
        different = dict.fromkeys(tuple(row) for row in table.tolist())
        return torch.tensor(list(different), dtype=torch.float64)

    @cached_property
    def swept(self) -> Sweep:
        """Preference accuracy on every domain under every setting."""
        data: Any = self.parts
        return sweep(
            self.model, self.composition, data, self.settings, reduce=self.reduce, progress=False
        )

    def costs(self, budget: float | None) -> Costs:
        """Return worst accuracy and KL of every setting."""
        rows = self.settings.tolist()
        effects = SideEffects(self.model, self.text)([(self.composition, tuple(r)) for r in rows])
        objectives = [
            min(float(measured[name]["accuracy"]) for name in self.moved)
            for measured in self.swept.measured
        ]
        found = [
            Cost(self._named(row), kl, objective)
            for row, (kl, _), objective in zip(rows, effects, objectives, strict=True)
        ]
        at = rows.index(self.own[0].to(self.settings).tolist())
        objective = "preference accuracy" + (", worst domain" if len(self.moved) > 1 else "")
        return Costs(tuple(found), at, budget, objective)

    def baselines(self, instruction: str | None, tuned: Model | None) -> dict[str, Baselines]:
        """Return the composition at its coefficients beside its baselines, by domain."""
        return {
            name: measure_baselines(
                self.model,
                self.composition(self.own[0]),
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
                pairs = pairs_of(self.train, name) or self.parts[name]
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
        settings = {}
        for share in (-1.0, -0.5, 0.0, 0.5, 1.0) if signed else (0.0, 0.5, 1.0):
            row = (share * self.own[0]).tolist()
            settings[self._named(row) if any(row) else "unsteered"] = row
        return answered(self.model, self.composition, asked, settings, **options)

    def _values(self, name: str, own: float) -> Sequence[float]:
        if isinstance(self.coefficients, Mapping):
            return self.coefficients.get(name, ())
        if self.coefficients is not None:
            return self.coefficients
        far = max(1.0, abs(own))
        low = -far if _signed(self.composition.parts[name].operator) else 0.0
        values: list[float] = torch.linspace(low, far, _POINTS).tolist()
        return values

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


def pairs_of(pairs: Pairs | None, domain: str) -> Pairs:
    """Return the pairs of a domain; all where none names one, none where there are none."""
    if pairs is None or not pairs.domains:
        return pairs or Pairs.of([])
    return pairs.of_domain(domain) if domain in pairs.domains else Pairs.of([])
