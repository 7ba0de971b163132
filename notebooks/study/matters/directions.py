"""Stage `directions`: is there a better direction than the mean difference, and what does it do?"""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

import steer
from notebooks.study.final import NEUTRAL, TOKENS
from notebooks.study.make import KL
from notebooks.study.matters.fisher import fisher, preconditioned
from notebooks.study.matters.measured import (
    SLICE,
    Explored,
    Scored,
    at_budget,
    scaled,
    scored,
)
from notebooks.study.rows import Row
from steer.measure import (
    NeutralText,
    degeneration,
    judge_answers,
    kl_divergence,
    neutral_text,
    random_like,
    trained_judge,
)
from steer.pairs import Pair, Pairs

LAYERS = (14, 22)
AVERAGED = range(8, 27)
FIRST = (1, 4, 8)  # tokens of an answer
SHARES = (0.25, 0.5, 0.75)  # of the mean difference in a mixture
DAMPINGS = {"fisher": 1.0, "fisher 0.1": 0.1}
MADE_FROM = 56  # pairs, as many as a style has
PROMPTS_ANSWERED = 28  # for the gradient of generated answers
_BANDS = {"1–4": 4, "5–12": 12, "13–": 10**6}  # tokens of an answer, each up to its last
_WORD = re.compile(r"\w")
_MARKS = re.compile(r"[^\w\s]")  # punctuation and emoji


def directions(model: steer.Model, what: Explored, seed: int) -> Iterator[Row]:
    """Yield a row for each direction and layer: gains, KL, answers, and which tokens gain."""
    train, bench = what.train[:MADE_FROM], _Bench.of(model, what)
    mean = steer.mean_difference(bench.recording)
    layers = sorted({*LAYERS, *AVERAGED})
    gradient = steer.preference_gradient(model, train, layers=layers, progress=False)
    parts = {"mean": mean, "gradient": gradient, **_firsts(model, train)}
    parts["generated"] = _generated(model, train, mean[LAYERS[0]], bench.text)
    forms = fisher(model, list(LAYERS), seed)
    for layer in LAYERS:
        raw = {name: vector[layer] for name, vector in parts.items()}
        raw |= _derived(mean[layer], gradient, forms[layer], layer)
        yield from bench.rows(raw, layer, ["unsteered", *raw])


def confirm(model: steer.Model, what: Explored, seed: int) -> Iterator[Row]:
    """Yield rows of `mean`, `gradient` and `layers` at one layer."""
    bench = _Bench.of(model, what)
    gradient = steer.preference_gradient(
        model, what.train[:MADE_FROM], layers=list(AVERAGED), progress=False
    )
    raw = {"mean": steer.mean_difference(bench.recording)[SLICE], "gradient": gradient[SLICE]}
    raw["layers"] = steer.Vector.of({SLICE: _averaged(gradient)})
    yield from bench.rows(raw, SLICE, ["unsteered", *raw])


def words(model: steer.Model, what: Explored, seed: int) -> Iterator[Row]:
    """Yield rows of the gradient for answers without punctuation and emoji, and of its mixture."""
    train, bench = what.train[:MADE_FROM], _Bench.of(model, what)
    bare = Pairs.of(
        Pair(pair.prompt, _MARKS.sub("", pair.chosen), _MARKS.sub("", pair.rejected))
        for pair in train
    )
    mean = steer.mean_difference(bench.recording)
    whole, only = (
        steer.preference_gradient(model, pairs, layers=list(LAYERS), progress=False)
        for pairs in (train, bare)
    )
    for layer in LAYERS:
        raw = {"mean": mean[layer], "gradient": whole[layer], "words": only[layer]}
        m, g = (v.direction(layer) / v.norm() for v in (raw["mean"], raw["words"]))
        raw["words mixed 0.5"] = steer.Vector.of({layer: m + g})
        yield from bench.rows(raw, layer, ["words", "words mixed 0.5"])


@dataclass(frozen=True, eq=False)
class _Bench:
    """What measures directions: the pairs, a judge, and two neutral texts."""

    model: steer.Model
    what: Explored
    recording: steer.Activations
    judge: Any
    text: NeutralText
    unread: NeutralText

    @classmethod
    def of(cls, model: steer.Model, what: Explored) -> "_Bench":
        recording = steer.record(model, what.train[:MADE_FROM], at="response_mean", progress=False)
        judge = what.own.rule or trained_judge(model, recording, what.unseen)
        return cls(model, what, recording, judge, neutral_text(model), neutral_text(model, NEUTRAL))

    def rows(self, raw: Mapping[str, steer.Vector], layer: int, names: list[str]) -> Iterator[Row]:
        """Yield what is measured of some of the vectors, each at the budget."""
        vectors = scaled(self.model, raw, self.text, layer)
        budgeted = {name: v for name, v in vectors.items() if name in names}
        coefficients = at_budget(self.model, budgeted, self.what.unseen, self.text)
        found = scored(self.model, budgeted, coefficients, self.what.unseen)
        asked = list(self.what.asked)
        for name in names:
            start, c = time.process_time(), coefficients.get(name, 0.0)
            vector = vectors.get(name, vectors["mean"])
            with self.model.steered(vector, c):
                kl = kl_divergence(self.model, self.unread).value
                answers = self.model.generate(asked, max_new_tokens=TOKENS, batch_size=len(asked))
            yield {
                "method": name,
                "layer": layer,
                "coefficient": c,
                "margins": [round(float(m), 5) for m in found.margins(name)],
                "kl_neutral": kl,
                "cosines": {o: round(vector.cosine(vectors[o]), 4) for o in ("mean", "gradient")},
                "tokens": _tokens(self.model, self.what, found, name),
                **_text(self.judge, self.what, answers),
                "cpu_seconds": round(time.process_time() - start, 1),
            }


def _firsts(model: steer.Model, train: Pairs) -> dict[str, steer.Vector]:
    """Return the gradients of the score of the first tokens: a cut answer has no other tokens."""
    found = {}
    for n in FIRST:
        cut = Pairs.of(
            Pair(pair.prompt, a, b, pair.domain)
            for pair in train
            for a, b in [(_cut(model, pair.chosen, n), _cut(model, pair.rejected, n))]
            if a != b
        )
        found[f"first {n}"] = steer.preference_gradient(
            model, cut, layers=list(LAYERS), progress=False
        )
    return found


def _cut(model: steer.Model, answer: str, tokens: int) -> str:
    ids = model.tokenizer(answer, add_special_tokens=False)["input_ids"][:tokens]
    return str(model.tokenizer.decode(ids))


def _generated(
    model: steer.Model, train: Pairs, mean: steer.Vector, text: NeutralText
) -> steer.Vector:
    """Return the gradient for the model's own steered answers against its unsteered ones."""
    prompts = list(dict.fromkeys(pair.prompt for pair in train))[:PROMPTS_ANSWERED]
    c = steer.calibrate(model, mean, KL, neutral=text, progress=False)
    before = model.generate(prompts, max_new_tokens=TOKENS, batch_size=14)
    with model.steered(mean, c):
        after = model.generate(prompts, max_new_tokens=TOKENS, batch_size=14)
    answers = zip(prompts, after, before, strict=True)
    pairs = Pairs.of(Pair(p, a, b) for p, a, b in answers if a != b and a.strip() and b.strip())
    return steer.preference_gradient(model, pairs, layers=list(LAYERS), progress=False)


def _derived(
    mean: steer.Vector, gradients: steer.Vector, form: torch.Tensor, layer: int
) -> dict[str, steer.Vector]:
    """Return what is computed from mean difference and gradient at one layer."""

    def at(direction: torch.Tensor) -> steer.Vector:
        return steer.Vector.of({layer: direction})

    m, g = mean.direction(layer) / mean.norm(), _unit(gradients, layer)
    found = {f"mixed {a}": at(a * m + (1 - a) * g) for a in SHARES}
    found |= {name: at(preconditioned(g, form, damping)) for name, damping in DAMPINGS.items()}
    found["layers"] = at(_averaged(gradients))
    return found | {f"random {k}": random_like(mean, k) for k in range(2)}


def _averaged(gradients: steer.Vector) -> torch.Tensor:
    """Return the mean of the unit gradients of many layers."""
    return torch.stack([_unit(gradients, layer) for layer in AVERAGED]).mean(dim=0)


def _unit(vector: steer.Vector, layer: int) -> torch.Tensor:
    direction: torch.Tensor = vector.direction(layer)
    unit: torch.Tensor = direction / direction.norm()
    return unit


def _text(judge: Any, what: Explored, answers: list[str]) -> dict[str, Any]:
    """Return what is said of answers: verdicts, repetition, and marks per answer."""
    wanted = what.own.name if what.own.rule else "chosen"
    judged = judge_answers(judge, what.asked, answers, wanted=wanted)
    return {
        "judged": judged.value,
        "verdicts": [verdict.label for verdict in judged.verdicts],
        "repetition": degeneration(answers).value,
        "marks": sum(len(_MARKS.findall(answer)) for answer in answers) / len(answers),
        "answers": answers,
    }


def _tokens(model: steer.Model, what: Explored, found: Scored, name: str) -> dict[str, float]:
    """Return the mean change of log-probability by side, and by position or kind of token."""
    groups: dict[str, list[float]] = {}
    k = found.names.index(name)
    for side in ("chosen", "rejected"):
        for pair, rows in zip(what.unseen, getattr(found, side), strict=True):
            change = (rows[k] - rows[0]).tolist()
            ids = model.tokenizer(getattr(pair, side), add_special_tokens=False)["input_ids"]
            for t, (token, value) in enumerate(zip(ids, change, strict=True)):
                written = model.tokenizer.decode([token])
                kind = "words" if _WORD.search(written) else "marks"
                band = next(name for name, last in _BANDS.items() if t < last)
                for group in (band, kind):
                    groups.setdefault(f"{side} {group}", []).append(value)
    return {group: round(sum(v) / len(v), 4) for group, v in groups.items()}
