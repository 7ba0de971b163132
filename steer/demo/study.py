"""The study of `steer demo`: pairs of some behaviours in, judged answers at −, 0 and + out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from steer.algebra import Composition, Vector, compose
from steer.demo.real.rules import on_topic
from steer.extract import Activations, domain_gate, palrs, record
from steer.measure import random_like, repetition
from steer.measure._answers import answers
from steer.model import Model
from steer.pairs import Message, Pairs
from steer.selection import Selection

KNOB = (-1.0, -0.5, 0.0, 0.5, 1.0)  # settings of each knob; 1 is the coefficient chosen
DIRECTIONS = 4  # random ones, each of the norm of the vector
Shares = Mapping[str, float]
Setting = Mapping[str, float]  # a coefficient by domain


@dataclass(frozen=True, eq=False, slots=True)
class Behaviour:
    """One knob of a demo.

    Args:
        pairs: Pairs that the vector is made from.
        labels: The labels of answers that are counted; the first is the behaviour's own.
        judge: Returns the label of an answer to a question.
        instruction: System message that asks for the behaviour.
        asked: Questions answered at every setting.
        kind: Name of the questions that the gate opens the knob for.
        fitted: Questions of this kind that the gate is fitted on.
        routed: Other questions of this kind, which the gate must route.
    """

    pairs: Pairs
    labels: tuple[str, ...]
    judge: Callable[[str, str], str | None]
    instruction: str
    asked: Sequence[str]
    kind: str
    fitted: Sequence[str]
    routed: Sequence[str]

    def shares(self, texts: Sequence[str]) -> Shares:
        """Return the share of each label among answers to `asked`, and two signs of their quality.

        Args:
            texts: The answers.
        """
        found = [
            self.judge(question, text) for question, text in zip(self.asked, texts, strict=True)
        ]
        counted = {label: found.count(label) / len(found) for label in self.labels}
        topic = fmean(map(on_topic, self.asked, texts))
        return counted | {"on topic": topic, "repeated": repetition(texts).value}


@dataclass(frozen=True, eq=False, slots=True)
class Subject:
    """What a demo studies.

    Args:
        behaviours: The knobs by name.
        choose: Chooses position, layer and strength of a behaviour from what was recorded.
        at: Positions to record.
        layers: Layers to record.
        tokens: The most tokens of an answer.
        gated: Questions of each kind answered without and with the gate.
        license: Licence of the vectors.
    """

    behaviours: Mapping[str, Behaviour]
    choose: Callable[[Activations, str], Selection]
    at: Sequence[str]
    layers: Sequence[int]
    tokens: int
    gated: int
    license: str | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Turned:
    """What the answers to new questions show while one knob is turned.

    Args:
        texts: The answers by setting of the knob.
        dose: Shares among them.
        prompted: Shares under the behaviour's system message.
        random: Shares along random directions, with the knob at 1.
    """

    texts: Mapping[float, Sequence[str]]
    dose: Mapping[float, Shares]
    prompted: Shares
    random: Sequence[Shares]


@dataclass(frozen=True, eq=False, slots=True)
class Study:
    """Everything that a demo measured.

    Args:
        subject: What was studied.
        choices: The selection of each behaviour.
        palrs: Position and layer that the rule of PaLRS takes among those recorded.
        turned: Answers and shares of each behaviour.
        rows: Setting, question and answer of one batch with a setting for each row.
        gate_accuracy: Share of held-out questions that the gate routes to their knob.
        gated: Share of answers with a behaviour's own label, by setting, kind of question and
            behaviour.
        routed: A question of each kind with its answer, all knobs at 1 behind the gate.
        vectors: The vector of each behaviour, with its setting and the gate.
    """

    subject: Subject
    choices: Mapping[str, Selection]
    palrs: Mapping[str, tuple[str, int]]
    turned: Mapping[str, Turned]
    rows: Sequence[tuple[Setting, str, str]]
    gate_accuracy: float
    gated: Mapping[tuple[str, str, str], float]
    routed: Mapping[str, tuple[str, str]]
    vectors: Mapping[str, Vector]


def study(
    model: Model,
    subject: Subject,
    *,
    seed: int = 0,
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Study:
    """Record, choose, steer, gate and judge.

    Args:
        model: The model.
        subject: What to study on it.
        seed: Seed of the random directions.
        progress: Whether to show the progress of recording, if the output is a terminal.
        say: Called with the name of each step as it begins.

    Returns:
        All that was measured.
    """
    behaviours = subject.behaviours
    say("record the pairs of all behaviours in one pass")
    pairs = Pairs.of(pair for b in behaviours.values() for pair in b.pairs)
    recording = record(model, pairs, subject.at, layers=subject.layers, progress=progress)
    choices, turned = {}, {}
    for name, behaviour in behaviours.items():
        say(f"{name}: choose position, layer and strength on held-out pairs")
        choices[name] = choice = subject.choose(recording, name)
        say(f"{name}: answer {len(behaviour.asked)} new questions at every setting")
        turned[name] = _turned(model, choice, behaviour, subject.tokens, seed)
    vectors = {name: choice.vector for name, choice in choices.items()}
    one = {name: choice.coefficient for name, choice in choices.items()}
    say("answer one batch with a setting for each row")
    rows = _rows(model, compose(vectors), one, subject)
    say("fit the gate, and answer questions of every kind without and with it")
    gate = domain_gate(
        model,
        {name: b.fitted for name, b in behaviours.items()},
        layer=min(vector.layers[0] for vector in vectors.values()),
        held_out={name: b.routed for name, b in behaviours.items()},
        progress=False,
    )
    gated, routed = _gated(model, compose(vectors, gate=gate), one, subject)
    return Study(
        subject=subject,
        choices=choices,
        palrs={name: _by_palrs(recording, name) for name in behaviours},
        turned=turned,
        rows=rows,
        gate_accuracy=gate.accuracy or 0.0,
        gated=gated,
        routed=routed,
        vectors={
            name: replace(v, gate=gate, provenance=replace(v.provenance, license=subject.license))
            for name, v in vectors.items()
        },
    )


def _by_palrs(recording: Activations, name: str) -> tuple[str, int]:
    vector = palrs(recording, domain=name, layers=list(recording.layers))
    return str(vector.provenance.arguments["position"]), vector.layers[0]


def _turned(
    model: Model, choice: Selection, behaviour: Behaviour, tokens: int, seed: int
) -> Turned:
    """Return answers and shares at every setting, along random directions, and when prompted."""
    one, vector = choice.coefficient, choice.vector
    random = {f"random {k}": random_like(vector, seed + 1 + k) for k in range(DIRECTIONS)}
    settings: list[Setting] = [{"knob": k * one} for k in KNOB]
    settings += [{name: one} for name in random]
    knobs, asked = compose({"knob": vector, **random}), behaviour.asked
    found = answers(model, knobs, settings, asked, tokens)
    system = Message("system", behaviour.instruction)
    prompts = [(system, Message("user", question)) for question in asked]
    prompted = model.generate(prompts, max_new_tokens=tokens)
    texts = dict(zip(KNOB, found, strict=False))
    return Turned(
        texts=texts,
        dose={k: behaviour.shares(text) for k, text in texts.items()},
        prompted=behaviour.shares(prompted),
        random=[behaviour.shares(text) for text in found[len(KNOB) :]],
    )


def _rows(
    model: Model, knobs: Composition, one: Setting, subject: Subject
) -> list[tuple[Setting, str, str]]:
    """Return each knob at +1 and −1 with a question and its answer, all of one batch."""
    signs = [(name, sign) for sign in (1.0, -1.0) for name in one]
    known = {name: b.asked for name, b in subject.behaviours.items()}
    asked = [known[name][k % len(known[name])] for k, (name, _) in enumerate(signs)]
    with model.steered(knobs, [{name: sign * one[name]} for name, sign in signs]):
        texts = model.generate(asked, max_new_tokens=subject.tokens)
    return [
        ({name: sign}, question, text)
        for (name, sign), question, text in zip(signs, asked, texts, strict=True)
    ]


def _gated(
    model: Model, knobs: Composition, one: Setting, subject: Subject
) -> tuple[dict[tuple[str, str, str], float], dict[str, tuple[str, str]]]:
    """Return `Study.gated` and `Study.routed`: each knob alone and all, without and with a gate."""
    behaviours = subject.behaviours
    asked = [
        (b.kind, question) for b in behaviours.values() for question in b.routed[: subject.gated]
    ]
    turned: dict[str, Setting] = {f"{name} +1": {name: c} for name, c in one.items()}
    turned["all +1"] = one
    shares: dict[tuple[str, str, str], float] = {}
    routed: dict[str, tuple[str, str]] = {}
    for how, composed in (("", knobs.gated(None)), (", gate", knobs)):
        settings = turned if how else {"unsteered": {}, **turned}
        prompts = [question for _, question in asked]
        texts = answers(model, composed, [*settings.values()], prompts, subject.tokens)
        for setting, found in zip(settings, texts, strict=True):
            for own in behaviours.values():
                answered = [
                    (q, text)
                    for (kind, q), text in zip(asked, found, strict=True)
                    if kind == own.kind
                ]
                routed[own.kind] = answered[0]  # that of the last setting stays
                for name, b in behaviours.items():
                    hits = [b.judge(q, text) == b.labels[0] for q, text in answered]
                    shares[f"{setting}{how}", own.kind, name] = fmean(hits)
    return shares, routed
