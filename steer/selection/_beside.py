"""What PaLRS's own rule would have taken from the same recording, at the same KL budget."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from steer.algebra import Composition, as_composition
from steer.errors import RecordingError
from steer.extract import Activations, palrs
from steer.measure import NeutralText, Preference
from steer.model import Model
from steer.selection._calibration import crossing, lockstep
from steer.selection._candidates import Candidate
from steer.selection._kernel import SideEffects

_NEAR = 0.9  # of the budget: a coefficient that spends so much of it is calibrated


@dataclass(frozen=True, slots=True)
class Beside:
    """A setting that was not chosen, on the same unseen pairs.

    Args:
        position: The position that the rule takes.
        layer: The layer that it takes.
        coefficient: The coefficient of its vector, which has the norm of the mean activation.
        kl: KL(steered‖unsteered) there, nats per response token; 0 where it acts on no response.
        accuracy: Preference accuracy on the unseen pairs, in [0, 1].
        gain: Mean change of margin on them, in nats.
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


def palrs_setting(
    model: Model,
    given: object,
    like: Candidate,
    text: NeutralText | None,
    kl: float | None,
) -> tuple[Composition, Beside] | None:
    """Return PaLRS's vector at the coefficient that spends the KL budget.

    Its rule chooses among template positions if there are some; None where the candidates are no
    recording, there is no budget, or no layer that it considers was recorded.
    """
    if not isinstance(given, Activations) or text is None or not kl:
        return None
    template = [p for p in given.positions if p.startswith("template")]
    try:
        vector = palrs(given, domain=given.domain(), positions=template or None)
    except RecordingError:
        return None
    ((name, part),) = like.composition.parts.items()
    knob = as_composition({name: replace(part, vector=vector)}).gated(like.composition.gate)
    effects = SideEffects(model, text)

    def measure(asked: Mapping[str, float]) -> dict[str, float]:
        ((found, _),) = effects([(knob, (asked[""],))])
        return {"": math.inf if math.isnan(found) else found}

    search = crossing(_NEAR * kl, kl, 1 / 4, 8.0 if part.operator == "add" else 1.0)
    ((c, reached),) = lockstep({"": search}, measure).values()
    position = str(vector.provenance.arguments["position"])
    return knob([c]), Beside(position, vector.layers[0], c, reached)


def on_pairs(
    one: Beside, before: Mapping[str, Preference], after: Mapping[str, Preference]
) -> Beside:
    """Return the same with what it does on unseen pairs."""
    changes = [m for name, p in after.items() for m in (p.margins - before[name].margins).tolist()]
    hits = [hit for p in after.values() for hit in p.hits]
    return replace(one, accuracy=sum(hits) / len(hits), gain=sum(changes) / len(changes))
