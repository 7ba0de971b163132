"""The main job on the demo model: from 100 pairs per domain to measured steered answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from steer.algebra import Composition, DomainGate, Vector, compose
from steer.demo.clock import Clock
from steer.demo.data import DOMAINS, LEVELS
from steer.demo.judge import judge
from steer.demo.language import NEUTRAL_PROMPTS, pairs, questions, system_tags
from steer.extract import Activations, domain_gate, palrs, record
from steer.measure import neutral_text
from steer.model import Model
from steer.pairs import Pairs
from steer.selection import Limits, Selection, select

KNOB = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)
KL_BUDGET = 3.0
LAYERS = (3, 4)  # of 6: where steering is tried
COEFFICIENTS = (0.5, 0.75)
LADDER = (("expert", "avoidance"), ("expert", "generic"), ("generic", "avoidance"))
NEW_TOKENS = 48
Shares = Mapping[str, float]


@dataclass(frozen=True, eq=False, slots=True)
class Study:
    """Everything the demo measured.

    Args:
        vectors: The tuned vector of each domain; each carries the gate.
        gate: The domain gate, with its held-out routing accuracy.
        choices: What `select` found for each domain.
        knob: The settings of the knob; coefficient = knob × the coefficient chosen.
        dose: Share of each level by domain and knob setting, steered alone and gated.
        matrix: Largest change of a level's share at ±1, in percentage points, by `(gated,
            steered domain, asked domain)`.
        samples: A question of each domain with its answers at knob −1, 0 and +1.
        seconds: Time of each step.
    """

    vectors: Mapping[str, Vector]
    gate: DomainGate
    choices: Mapping[str, Selection]
    knob: tuple[float, ...]
    dose: Mapping[tuple[str, float], Shares]
    matrix: Mapping[tuple[bool, str, str], float]
    samples: Mapping[str, tuple[str, Mapping[float, str]]]
    seconds: Mapping[str, float]

    @property
    def knobs(self) -> Composition:
        """The three vectors behind the gate; call it to set the knobs."""
        return compose(self.vectors, gate=self.gate)


def study(
    model: Model,
    *,
    n_pairs: int = 100,
    n_questions: int = 30,
    knob: Sequence[float] = KNOB,
    seed: int = 0,
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Study:
    """Compute, choose, steer and judge on the demo model.

    Args:
        model: The demo model.
        n_pairs: Preference pairs per domain for the vectors.
        n_questions: Test questions per domain, on topics that occur in no pair.
        knob: Settings of the knob.
        seed: Seed of pairs, questions and splits.
        progress: Whether to show progress bars.
        say: Called with the name of each step as it begins.

    Returns:
        All that was measured.
    """
    clock = Clock(say)
    with clock.step(f"compute vectors from {n_pairs} pairs per domain"):
        made_from = _all_pairs(n_pairs, seed, "train")
        activations = record(model, made_from, at="template", progress=progress)
    with clock.step("choose layer and strength on held-out pairs"):
        choices = choose(model, activations, n_questions, seed, progress)
        vectors = {domain: choice.vector for domain, choice in choices.items()}
    with clock.step("fit the domain gate and measure its routing"):
        layer = min(vector.layers[0] for vector in vectors.values())
        held_out = {d: questions(d, n_questions, seed=seed, split="validation") for d in DOMAINS}
        gate = domain_gate(model, made_from, layer=layer, held_out=held_out)
        vectors = {
            d: replace(v, gate=gate, provenance=replace(v.provenance, license="Apache-2.0"))
            for d, v in vectors.items()
        }
    asked = {d: questions(d, n_questions, seed=seed + 1, split="test") for d in DOMAINS}
    composed = compose(vectors)
    with clock.step(f"steer at {len(knob)} settings and judge"):
        answers = {d: _sweep(model, composed, d, knob, asked[d]) for d in DOMAINS}
        dose = {(d, k): _levels(texts, d) for d in DOMAINS for k, texts in answers[d].items()}
    with clock.step("measure every domain under every knob, without and with the gate"):
        matrix = interference(model, composed, gate, asked)
    samples = {
        d: (asked[d][0], {k: answers[d][k][0] for k in (min(knob), 0.0, max(knob))})
        for d in DOMAINS
    }
    return Study(vectors, gate, choices, tuple(knob), dose, matrix, samples, dict(clock.seconds))


def choose(
    model: Model, activations: Activations, n_questions: int, seed: int, progress: bool
) -> dict[str, Selection]:
    """Choose layer, position and strength for each domain, on topics that occur in no pair.

    Args:
        model: The demo model.
        activations: What was recorded on the training pairs.
        n_questions: Validation and test pairs per domain.
        seed: Seed of the pairs.
        progress: Whether to show progress bars.

    Returns:
        The choice of each domain.
    """
    text = neutral_text(model, NEUTRAL_PROMPTS[::2], max_new_tokens=16)
    chosen = {}
    for domain in DOMAINS:
        candidates = [
            palrs(activations, domain=domain, positions=[position], layers=[layer])
            for position in activations.positions
            for layer in LAYERS
        ]
        chosen[domain] = select(
            model,
            candidates,
            ladder(domain, n_questions, seed, "validation"),
            test=ladder(domain, n_questions, seed, "test"),
            coefficients=COEFFICIENTS,
            limits=Limits(kl=KL_BUDGET),
            answers=False,
            both_ways=True,
            neutral=text,
            instruction=system_tags({domain: "expert"}),
            seed=seed,
            progress=progress,
        )
    return chosen


def ladder(domain: str, n: int, seed: int, split: str) -> Pairs:
    """Return pairs that put expert before generic and generic before avoidance.

    A knob is to climb all of these steps; with expert against avoidance alone, nearly every
    setting is right on every pair, and the choice would be left to chance.

    Args:
        domain: The domain.
        n: Pairs in all, a third of each kind (rounded up).
        seed: Seed of the pairs.
        split: The split.
    """
    each = -(-n // len(LADDER))
    return Pairs.of(
        pair
        for k, (chosen, rejected) in enumerate(LADDER)
        for pair in pairs(
            domain,
            each,
            seed=seed + k,
            split=split,
            chosen_level=chosen,
            rejected_level=rejected,
        )
    )


def interference(
    model: Model,
    composed: Composition,
    gate: DomainGate,
    asked: Mapping[str, Sequence[str]],
) -> dict[tuple[bool, str, str], float]:
    """Return how far each knob at ±1 moves the answers in each domain.

    The effect is the largest change of a level's share against the unsteered model, over both
    ends of the knob and all levels, in percentage points.

    Args:
        model: The demo model.
        composed: The vectors.
        gate: The domain gate.
        asked: Test questions of each domain.

    Returns:
        The effect by `(gated, steered domain, asked domain)`.
    """
    effect = {}
    base = {d: _levels(model.generate(list(asked[d]), max_new_tokens=NEW_TOKENS), d) for d in asked}
    for gated in (False, True):
        composition = composed.gated(gate) if gated else composed
        for domain in DOMAINS:
            for affected, texts in asked.items():
                moved = _sweep(model, composition, domain, (-1.0, 1.0), texts)
                effect[gated, domain, affected] = 100 * max(
                    abs(_levels(answers, affected)[level] - base[affected][level])
                    for answers in moved.values()
                    for level in LEVELS
                )
    return effect


def _all_pairs(n: int, seed: int, split: str) -> Pairs:
    joined = [pair for d in DOMAINS for pair in pairs(d, n, seed=seed, split=split)]
    return Pairs.of(joined)


def _sweep(
    model: Model, composed: Composition, domain: str, knob: Sequence[float], asked: Sequence[str]
) -> dict[float, list[str]]:
    """Return the answers to every question at every setting: settings are rows of one batch."""
    tuning = composed.parts[domain].vector.tuning
    strength = 1.0 if tuning is None else tuning.coefficient
    column = composed.domains.index(domain)
    rows = torch.zeros(len(knob) * len(asked), len(composed.domains))
    rows[:, column] = torch.tensor(knob).repeat_interleave(len(asked)) * strength
    with model.steered(composed, rows):
        texts = model.generate(list(asked) * len(knob), max_new_tokens=NEW_TOKENS)
    n = len(asked)
    return {k: texts[i * n : (i + 1) * n] for i, k in enumerate(knob)}


def _levels(texts: Sequence[str], domain: str) -> dict[str, float]:
    """Return the share of each level among answers; an answer of another domain has none."""
    found = [judge(text) for text in texts]
    return {
        level: sum(j.domain == domain and j.level == level for j in found) / len(found)
        for level in LEVELS
    }
