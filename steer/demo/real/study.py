"""The recipe on an instruct model: pairs of two behaviours in, judged answers at −, 0 and + out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from steer.algebra import Composition, Vector, compose
from steer.demo.real.answers import Setting, answers, share
from steer.demo.real.behaviours import ASKED, held_out, judge, pairs
from steer.demo.real.gated import gated_shares
from steer.demo.real.kinds import FITTED, KIND_OF, ROUTED
from steer.demo.real.rules import OPPOSITES, on_topic
from steer.extract import Activations, domain_gate, mean_difference, palrs, record
from steer.measure import random_like, repetition
from steer.model import Model
from steer.pairs import Message, Pairs
from steer.selection import Limits, Race, Selection, select

KL_BUDGET = 0.45  # on the text of the choice, so that it stays below 0.5 on other text
DIRECTIONS = 4  # random ones, each of the norm of the vector
INSTRUCTION = {
    "cheerful": "Answer in a very cheerful and enthusiastic way.",
    "formal": "Answer in a very formal and polite way.",
}
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Size:
    """How much the study measures.

    Args:
        layers: Layers tried, evenly spread over the middle half of the depth.
        kept: Candidates that enter the race of each behaviour.
        pairs: Most pairs to make a vector from, and to choose with, of each behaviour.
        asked: Questions answered at every setting.
        kinds: Questions of each kind, answered without and with the gate.
        tokens: Most tokens of an answer.
        knob: Settings of each knob; 1 is the coefficient chosen.
    """

    layers: int = 5
    kept: int = 10
    pairs: int = 60
    asked: int = 10
    kinds: int = 6
    tokens: int = 32
    knob: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read off the answers at one setting.

    Args:
        share: Share of answers judged to show the behaviour.
        opposite: Share judged the opposite; see `OPPOSITES`.
        on_topic: Share that name something the question names.
        repeated: Share of 4-grams that an answer held before.
    """

    share: float
    opposite: float
    on_topic: float
    repeated: float


@dataclass(frozen=True, eq=False, slots=True)
class Study:
    """Everything the demo measured.

    Args:
        choices: What `select` found for each behaviour.
        palrs: Position and layer that the rule of PaLRS takes among those recorded.
        gate_accuracy: Share of held-out questions that the gate routes rightly.
        asked: The questions answered.
        texts: Their answers by behaviour and knob setting.
        dose: What was read off them.
        prompted: The same for the system prompt of each behaviour.
        random: The same for each random direction of the vector's norm.
        kinds: Share judged to show a behaviour, by `(setting, kind, behaviour)`.
        routed: A question of each kind with its answer, both knobs at 1 behind the gate.
        rows: Setting, question and answer of one batch with a row each.
        size: How much was measured.
        vectors: The vector of each behaviour, with its setting and the gate.
    """

    choices: Mapping[str, Selection]
    palrs: Mapping[str, tuple[str, int]]
    gate_accuracy: float
    asked: tuple[str, ...]
    texts: Mapping[tuple[str, float], Sequence[str]]
    dose: Mapping[tuple[str, float], Reading]
    prompted: Mapping[str, Reading]
    random: Mapping[str, tuple[Reading, ...]]
    kinds: Mapping[tuple[str, str, str], float]
    routed: Mapping[str, tuple[str, str]]
    rows: Sequence[tuple[Setting, str, str]]
    size: Size
    vectors: Mapping[str, Vector]


def study(
    model: Model,
    size: Size | None = None,
    *,
    seed: int = 0,
    progress: bool = False,
    say: Say = lambda _: None,
) -> Study:
    """Record, choose, steer, gate and judge.

    Args:
        model: An instruct model.
        size: How much to measure.
        seed: Seed of the selection and of the random directions.
        progress: Whether to show progress bars, if the output is a terminal.
        say: Called with the name of each step as it begins.

    Returns:
        All that was measured.
    """
    size = size or Size()
    say("record the pairs of both behaviours in one pass")
    made_from = Pairs.of(p for b in KIND_OF for p in pairs(b)[: size.pairs])
    recording = record(model, made_from, layers=layers_of(model, size.layers), progress=progress)
    choices = {}
    for behaviour in KIND_OF:
        say(f"{behaviour}: choose position, layer and strength on held-out pairs")
        choices[behaviour] = choose(model, recording, behaviour, size, seed, progress)
    vectors = {b: choice.vector for b, choice in choices.items()}
    knobs = compose(vectors)
    one = {b: choice.coefficient for b, choice in choices.items()}
    asked = ASKED[: size.asked]
    say(f"answer {len(asked)} new questions at every setting, beside random directions")
    texts, random = _answered(model, knobs, one, asked, size, seed, progress)
    dose = {(b, k): _read(b, asked, found) for (b, k), found in texts.items()}
    say("answer the same questions with system prompts")
    prompted = {b: _read(b, asked, _prompted(model, b, asked, size)) for b in KIND_OF}
    say("fit the gate, and answer questions of two kinds without and with it")
    layer = min(vector.layers[0] for vector in vectors.values())
    by_behaviour = {b: FITTED[kind] for b, kind in KIND_OF.items()}
    unseen = {b: ROUTED[kind] for b, kind in KIND_OF.items()}
    gate = domain_gate(model, by_behaviour, layer=layer, held_out=unseen, progress=False)
    kinds, routed = gated_shares(model, knobs.gated(gate), one, size.kinds, size.tokens, progress)
    return Study(
        choices=choices,
        palrs={b: _of_palrs(recording, b) for b in KIND_OF},
        gate_accuracy=gate.accuracy or 0.0,
        asked=asked,
        texts=texts,
        dose=dose,
        prompted=prompted,
        random=random,
        kinds=kinds,
        routed=routed,
        rows=_row_each(model, knobs, one, asked, size),
        size=size,
        vectors={b: replace(vector, gate=gate) for b, vector in vectors.items()},
    )


def layers_of(model: Model, n: int) -> list[int]:
    """Return layers evenly spread over the middle half of the depth.

    Args:
        model: The model.
        n: How many at most.
    """
    low, high = model.n_layers / 4, 3 * model.n_layers / 4
    return sorted({int(low + (high - low) * (k + 0.5) / n) for k in range(n)})


def choose(
    model: Model, recording: Activations, behaviour: str, size: Size, seed: int, progress: bool
) -> Selection:
    """Choose one of the mean differences at all positions and layers that were recorded.

    Args:
        model: The model.
        recording: What was recorded of the training pairs.
        behaviour: The behaviour.
        size: How much is measured.
        seed: Seed of the split and of the race.
        progress: Whether to show progress bars.
    """
    candidates = {
        position: mean_difference(recording, domain=behaviour, position=position)
        for position in recording.positions
    }
    return select(
        model,
        candidates,
        held_out(behaviour)[: size.pairs],
        limits=Limits(kl=KL_BUDGET),
        strategy=Race(keep=size.kept, at_random=min(3, size.kept - 1)),
        instruction=INSTRUCTION[behaviour],
        judge=judge(behaviour),
        wanted=behaviour,
        answers=False,
        seed=seed,
        progress=progress,
    )


def _of_palrs(recording: Activations, behaviour: str) -> tuple[str, int]:
    vector = palrs(recording, domain=behaviour, layers=list(recording.layers))
    return str(vector.provenance.arguments["position"]), vector.layers[0]


def _answered(
    model: Model,
    knobs: Composition,
    one: Setting,
    asked: Sequence[str],
    size: Size,
    seed: int,
    progress: bool,
) -> tuple[dict[tuple[str, float], list[str]], dict[str, tuple[Reading, ...]]]:
    """Return the answers at every setting of each knob, and readings of random directions."""
    others = [random_like(knobs, seed + 1 + k) for k in range(DIRECTIONS)]
    named = {b: part.vector for b, part in knobs.parts.items()}
    named |= {f"{b} {k}": part.vector for k, o in enumerate(others) for b, part in o.parts.items()}
    settings: dict[tuple[str, float], Setting] = {("", 0.0): {}}
    for name in named:
        behaviour, _, direction = name.partition(" ")
        turned = (1.0,) if direction else size.knob
        settings |= {(name, k): {name: k * one[behaviour]} for k in turned if k}
    every = [*settings.values()]
    found = answers(model, compose(named), every, asked, tokens=size.tokens, progress=progress)
    texts = dict(zip(settings, found, strict=True))
    dose = {(b, k): texts[(b, k) if k else ("", 0.0)] for b in knobs.domains for k in size.knob}
    random = {
        b: tuple(_read(b, asked, texts[f"{b} {k}", 1.0]) for k in range(DIRECTIONS))
        for b in knobs.domains
    }
    return dose, random


def _prompted(model: Model, behaviour: str, asked: Sequence[str], size: Size) -> list[str]:
    system = Message("system", INSTRUCTION[behaviour])
    prompts = [(system, Message("user", question)) for question in asked]
    return model.generate(prompts, max_new_tokens=size.tokens)


def _read(behaviour: str, asked: Sequence[str], texts: Sequence[str]) -> Reading:
    rule = judge(behaviour)
    return Reading(
        share(rule, behaviour, texts),
        share(rule, OPPOSITES[behaviour] or "", texts),
        fmean(map(on_topic, asked, texts)),
        repetition(texts).value,
    )


def _row_each(
    model: Model, knobs: Composition, one: Setting, asked: Sequence[str], size: Size
) -> list[tuple[Setting, str, str]]:
    """Answer different questions at different settings of both knobs in one batch."""
    turned = [{b: sign} for sign in (1.0, -1.0) for b in one]
    rows = list(zip(turned, asked, strict=False))
    coefficients = [{b: k * one[b] for b, k in setting.items()} for setting, _ in rows]
    with model.steered(knobs, coefficients):
        texts = model.generate([question for _, question in rows], max_new_tokens=size.tokens)
    return [(setting, q, text) for (setting, q), text in zip(rows, texts, strict=True)]
