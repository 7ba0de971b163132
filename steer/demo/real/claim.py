"""What a vector does to answers: their labels at −c, 0 and +c, stored with the vector."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from steer.algebra import Vector, compose
from steer.demo.real.behaviours import ASKED
from steer.demo.real.rules import OPPOSITES, judge, on_topic
from steer.errors import VectorFileError
from steer.measure import Share, ShareChange
from steer.measure._answers import answers
from steer.model import Model

SIGNS = (-1, 0, 1)
TOKENS = 32  # of an answer
_KEY = "claim"  # among the arguments of a vector's provenance


@dataclass(frozen=True, slots=True)
class Claim:
    """The label and the topic of each answer, unsteered and at both signs of a coefficient.

    Args:
        behaviour: Name of the behaviour, which has a rule in `steer.demo.real.rules`.
        coefficient: The coefficient c, dimensionless.
        tokens: The most tokens of an answer.
        labels: By sign −1, 0 and +1, the label of each answer, in the order of `ASKED`.
        on_topic: By sign, whether each answer names something of its question.
    """

    behaviour: str
    coefficient: float
    tokens: int
    labels: Mapping[int, tuple[str, ...]]
    on_topic: Mapping[int, tuple[bool, ...]]

    def __post_init__(self) -> None:
        for name in ("labels", "on_topic"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def share(self, label: str, sign: int) -> Share:
        """Return the share of answers with a label at a sign."""
        return Share(self.labels[sign].count(label), len(self.labels[sign]))

    def topic(self, sign: int) -> Share:
        """Return the share of answers on topic at a sign."""
        return Share(sum(self.on_topic[sign]), len(self.on_topic[sign]))

    @property
    def change(self) -> ShareChange:
        """The change in the share of the behaviour from the unsteered model to +c."""
        before, after = ([x == self.behaviour for x in self.labels[sign]] for sign in (0, 1))
        return ShareChange.of(before, after)

    def first(self, n: int) -> "Claim":
        """Return the claim about the first n questions."""
        labels = {sign: found[:n] for sign, found in self.labels.items()}
        topics = {sign: found[:n] for sign, found in self.on_topic.items()}
        return replace(self, labels=labels, on_topic=topics)

    def held_by(self, measured: "Claim") -> bool:
        """Return whether a measured change reaches the lower end of the claimed one's interval."""
        return measured.change.value >= self.change.interval[0]

    def stored_with(self, vector: Vector) -> Vector:
        """Return a vector with this claim among the arguments of its provenance."""
        document = {
            "behaviour": self.behaviour,
            "coefficient": self.coefficient,
            "tokens": self.tokens,
            "labels": {f"{sign:+d}": list(found) for sign, found in self.labels.items()},
            "on_topic": {f"{sign:+d}": list(found) for sign, found in self.on_topic.items()},
        }
        made = vector.provenance
        arguments = {**made.arguments, _KEY: document}
        return replace(vector, provenance=replace(made, arguments=arguments))


def claim_of(vector: Vector) -> Claim | None:
    """Return the claim stored with a vector; None if there is none.

    Args:
        vector: The vector.

    Raises:
        VectorFileError: What is stored is not a claim about a behaviour of this version.
    """
    found = vector.provenance.arguments.get(_KEY)
    if found is None:
        return None
    try:
        return _read(found)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise VectorFileError(
            "the claim in this file cannot be checked",
            found=f"{type(error).__name__}: {error}",
            expected=f"labels of {len(ASKED)} answers about one of {', '.join(OPPOSITES)}",
            do="check it with the version of the library that wrote it",
        ) from None


def _read(found: Mapping[str, object]) -> Claim:
    labels, topics = found["labels"], found["on_topic"]
    claim = Claim(
        str(found["behaviour"]),
        float(found["coefficient"]),  # type: ignore[arg-type]
        int(found["tokens"]),  # type: ignore[call-overload]
        {sign: tuple(map(str, labels[f"{sign:+d}"])) for sign in SIGNS},  # type: ignore[index]
        {sign: tuple(map(bool, topics[f"{sign:+d}"])) for sign in SIGNS},  # type: ignore[index]
    )
    if claim.behaviour not in OPPOSITES:
        raise ValueError(f"behaviour {claim.behaviour!r}")
    sizes = {len(part) for of in (claim.labels, claim.on_topic) for part in of.values()}
    if sizes != {len(ASKED)}:
        raise ValueError(f"{sorted(sizes)} answers")
    if claim.tokens < 1:
        raise ValueError(f"{claim.tokens} tokens")
    return claim


def measure(
    model: Model,
    vector: Vector,
    behaviour: str,
    coefficient: float,
    *,
    tokens: int = TOKENS,
    strict: bool = True,
) -> tuple[Claim, Mapping[int, list[str]]]:
    """Return the claim that the answers at −c, 0 and +c support, and the answers by sign.

    Args:
        model: The model; it must not be steered.
        vector: The vector.
        behaviour: Name of the behaviour.
        coefficient: The coefficient c, dimensionless.
        tokens: The most tokens of an answer.
        strict: Whether a vector of another configuration, tokenizer or template is refused.

    Raises:
        FitError: The vector does not fit the model.
        SteeringError: The model is being steered.
    """
    settings = [{behaviour: sign * coefficient} for sign in SIGNS]
    knobs = compose({behaviour: vector})
    found = answers(model, knobs, settings, ASKED, tokens, strict=strict)
    by_sign = dict(zip(SIGNS, found, strict=True))
    label = judge(behaviour)
    claim = Claim(
        behaviour,
        coefficient,
        tokens,
        {sign: tuple(map(label, ASKED, texts)) for sign, texts in by_sign.items()},
        {sign: tuple(map(on_topic, ASKED, texts)) for sign, texts in by_sign.items()},
    )
    return claim, by_sign
