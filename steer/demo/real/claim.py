"""What a vector does to answers: the labels of its questions at −c, 0 and +c, stored with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from steer.algebra import Vector, compose
from steer.demo.real.behaviours import ASKED
from steer.demo.real.rules import OPPOSITES, judge, on_topic
from steer.errors import VectorFileError
from steer.measure import Share, ShareChange
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
        """Return the share of answers with a label.

        Args:
            label: The label.
            sign: −1, 0 or +1.
        """
        return Share(self.labels[sign].count(label), len(self.labels[sign]))

    def topic(self, sign: int) -> Share:
        """Return the share of answers on topic.

        Args:
            sign: −1, 0 or +1.
        """
        return Share(sum(self.on_topic[sign]), len(self.on_topic[sign]))

    @property
    def change(self) -> ShareChange:
        """The change in the share of the behaviour from the unsteered model to +c."""
        before, after = (
            [label == self.behaviour for label in self.labels[sign]] for sign in (0, 1)
        )
        return ShareChange.of(before, after)

    def first(self, n: int) -> "Claim":
        """Return the claim about the first n questions.

        Args:
            n: Number of questions, at least 1.
        """
        return replace(
            self,
            labels={sign: found[:n] for sign, found in self.labels.items()},
            on_topic={sign: found[:n] for sign, found in self.on_topic.items()},
        )

    def held_by(self, measured: "Claim") -> bool:
        """Return whether a measured change reaches the claimed one less its interval.

        Args:
            measured: What was measured with the same questions.
        """
        return measured.change.value >= self.change.interval[0]

    def stored_with(self, vector: Vector) -> Vector:
        """Return a vector with this claim among the arguments of its provenance.

        Args:
            vector: The vector.
        """
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
        claim = _read(found)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(f"{type(error).__name__}: {error}") from None
    return claim


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


def _unreadable(found: str) -> VectorFileError:
    return VectorFileError(
        "the claim in this file cannot be checked",
        found=found,
        expected=f"labels of {len(ASKED)} answers about one of {', '.join(OPPOSITES)}",
        do="check it with the version of the library that wrote it",
    )


def measure(
    model: Model,
    vector: Vector,
    behaviour: str,
    coefficient: float,
    *,
    questions: Sequence[str] = ASKED,
    tokens: int = TOKENS,
    signs: Sequence[int] = SIGNS,
    strict: bool = True,
) -> tuple[Claim, Mapping[int, list[str]]]:
    """Answer the questions at −c, 0 and +c in one batch and judge the answers.

    Args:
        model: The model; it must not be steered.
        vector: The vector.
        behaviour: Name of the behaviour.
        coefficient: The coefficient c, dimensionless.
        questions: What is asked.
        tokens: The most tokens of an answer.
        signs: Which of −1, 0 and +1 to answer at.
        strict: Whether a vector of another configuration, tokenizer or template is refused.

    Returns:
        The claim that the answers support, and the answers by sign.

    Raises:
        FitError: The vector does not fit the model.
        SteeringError: The model is being steered.
    """
    asked = list(questions)
    rows = [{behaviour: sign * coefficient} for sign in signs for _ in asked]
    with model.steered(compose({behaviour: vector}), rows, strict=strict):
        texts = model.generate(asked * len(signs), max_new_tokens=tokens)
    answers = {sign: texts[k * len(asked) :][: len(asked)] for k, sign in enumerate(signs)}
    label = judge(behaviour)
    found = Claim(
        behaviour,
        coefficient,
        tokens,
        {s: tuple(map(label, asked, texts)) for s, texts in answers.items()},
        {s: tuple(map(on_topic, asked, texts)) for s, texts in answers.items()},
    )
    return found, answers
