"""The test of a chosen setting on unseen pairs, beside its baselines."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from steer.algebra import Composition, as_composition
from steer.engine._reading import dtype_of
from steer.errors import RecordingError
from steer.extract import Activations, palrs
from steer.measure import Preference, Share, random_like
from steer.measure._preference import with_prefix
from steer.measure._scores import at, preferences
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
    prefixes: Mapping[str, Sequence[Message]] | None = None,
    beside: tuple[Composition, Beside] | None = None,
) -> tuple[dict[str, HeldOutResult], Beside | None]:
    """Measure a setting on unseen pairs, beside the unsteered model, random vectors and PaLRS."""
    model, reduce = evaluator.model, evaluator.reduce
    compared = [setting(0.0), setting, *references(setting, seed)]
    compared += [] if beside is None else [beside[0]]
    found = preferences(model, [at(one) for one in compared], unseen, reduce)
    base, steered, others = found[0], found[1], found[2 : 2 + REFERENCES]
    asked = {
        name: Pairs.of(replace(p, prompt=with_prefix(prefix, p.prompt)) for p in unseen[name])
        for name, prefix in (prefixes or {}).items()
    }
    (prompted,) = preferences(model, [at(setting(0.0))], asked, reduce) if asked else ({},)
    dtype = dtype_of(model.architecture)
    results = {
        name: HeldOutResult(
            steered[name].accuracy,
            base[name].accuracy,
            others[0][name].accuracy,
            prompted[name].accuracy if name in prompted else None,
            evidence(
                base[name].margins.tolist(),
                steered[name].margins.tolist(),
                [other[name].margins.tolist() for other in others],
                settings,
                rounding(base[name], steered[name], dtype),
            ),
        )
        for name in unseen
    }
    return results, None if beside is None else _measured(beside[1], base, found[-1])


def _measured(
    one: Beside, before: Mapping[str, Preference], after: Mapping[str, Preference]
) -> Beside:
    """Return the same with what it does on unseen pairs."""
    changes = [m for name, p in after.items() for m in (p.margins - before[name].margins).tolist()]
    hits = [hit for p in after.values() for hit in p.hits]
    return replace(one, accuracy=sum(hits) / len(hits), gain=sum(changes) / len(changes))


def references(setting: Composition, seed: int) -> list[Composition]:
    """Return random vectors of equal norm at a setting; other seeds share none of them."""
    digests = (hashlib.sha256(f"{seed} {k}".encode()).digest() for k in range(REFERENCES))
    return [random_like(setting, int.from_bytes(digest[:6])) for digest in digests]


def palrs_setting(
    evaluator: Evaluator, given: object, like: Candidate, kl: float | None
) -> tuple[Composition, Beside] | None:
    """Return PaLRS's vector at the coefficient that spends the KL budget.

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
