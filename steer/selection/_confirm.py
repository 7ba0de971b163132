"""The test of a chosen setting on unseen pairs, beside its baselines."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch

from steer.algebra import Composition, as_composition
from steer.engine._reading import dtype_of
from steer.errors import RecordingError
from steer.extract import Activations, palrs
from steer.measure import Share, random_like
from steer.measure._baselines import conditions
from steer.pairs import Message, Pairs
from steer.selection._calibration import spend
from steer.selection._candidates import Candidate
from steer.selection._evaluator import Evaluator
from steer.selection._significance import Evidence, evidence, rounding

REFERENCES = 16  # random vectors that a choice is compared with


@dataclass(frozen=True, slots=True)
class HeldOutResult:
    """The result of one setting on unseen pairs of one domain.

    Args:
        steered: Preference accuracy at the setting.
        base: The same of the unsteered model.
        random: The same of a random vector of equal norm at the setting.
        prompted: The same of the unsteered model after an instruction or worked examples; None
            where it was not measured.
        evidence: Tests of the margins against the unsteered model and random vectors.
    """

    steered: Share
    base: Share
    random: Share
    prompted: Share | None
    evidence: Evidence

    @property
    def baselines(self) -> dict[str, Share]:
        """The accuracies that the steered one is compared with, by name."""
        found = {"base": self.base, "random": self.random}
        return found if self.prompted is None else {**found, "prompted": self.prompted}


@dataclass(frozen=True, slots=True)
class Beside:
    """The setting that PaLRS's own rule takes: KL, accuracy and gain of margin on unseen pairs.

    Its vector has the norm of the mean activation; KL and gain are in nats.
    """

    position: str
    layer: int
    coefficient: float
    kl: float
    accuracy: float = math.nan
    gain: float = math.nan

    def __str__(self) -> str:
        return (
            f"{self.position} layer {self.layer}: accuracy {self.accuracy:.1%}, margin "
            f"{self.gain:+.3f} nats at KL {self.kl:.3f}, coefficient {self.coefficient:.3g}"
        )


def held_out(
    evaluator: Evaluator,
    setting: Composition,
    unseen: Mapping[str, Pairs],
    seed: int,
    settings: int,
    prefixes: Mapping[str, Sequence[Message]] = MappingProxyType({}),
    beside: tuple[Composition, Beside] | None = None,
) -> tuple[dict[str, HeldOutResult], Beside | None]:
    """Measure a setting on unseen pairs, beside the unsteered model, random vectors and PaLRS."""
    model = evaluator.model
    others = {f"random {k}": one for k, one in enumerate(references(setting, seed))}
    drawn = list(others)
    others |= {} if beside is None else {"PaLRS": beside[0]}
    found = conditions(model, setting, unseen, prefixes, others, evaluator.reduce)
    results = {}
    for name in unseen:
        own = {kind: by_domain[name] for kind, by_domain in found.items() if name in by_domain}
        base, steered = own["unsteered"], own["steered"]
        results[name] = HeldOutResult(
            steered.accuracy,
            base.accuracy,
            own[drawn[0]].accuracy,
            own["prompted"].accuracy if "prompted" in own else None,
            evidence(
                base.margins.tolist(),
                steered.margins.tolist(),
                [own[kind].margins.tolist() for kind in drawn],
                settings,
                rounding(base, steered, dtype_of(model.architecture)),
            ),
        )
    if beside is None:
        return results, None
    after, before = (
        torch.cat([m.margins for m in found[k].values()]) for k in ("PaLRS", "unsteered")
    )
    share, gain = (after > 0).double().mean(), (after - before).mean()
    return results, replace(beside[1], accuracy=float(share), gain=float(gain))


def references(setting: Composition, seed: int) -> list[Composition]:
    """Return random vectors of equal norm at a setting; other seeds share none of them."""
    digests = (hashlib.sha256(f"{seed} {k}".encode()).digest() for k in range(REFERENCES))
    return [random_like(setting, int.from_bytes(digest[:6])) for digest in digests]


def palrs_setting(
    evaluator: Evaluator, given: object, like: Candidate, kl: float | None
) -> tuple[Composition, Beside] | None:
    """Return PaLRS's vector at the coefficient that spends the KL budget, not yet measured.

    Its rule chooses among template positions if there are some; None where the candidates are no
    recording, there is no budget, or no layer that it considers was recorded.
    """
    if not isinstance(given, Activations) or evaluator.text is None or not kl:
        return None
    template = [p for p in given.positions if p.startswith("template")]
    try:
        vector = palrs(given, domain=given.domain(), positions=template or None)
    except RecordingError:
        return None
    ((name, part),) = like.composition.parts.items()
    knob = as_composition({name: replace(part, vector=vector)}).gated(like.composition.gate)
    position, (layer,) = str(vector.provenance.arguments["position"]), vector.layers
    candidate, most = Candidate(position, knob, layer), 8.0 if part.operator == "add" else 1.0
    ((c, spent),) = spend(evaluator, {position: (candidate, 1 / 4, most)}, kl).values()
    return knob([c]), Beside(position, layer, c, spent)
