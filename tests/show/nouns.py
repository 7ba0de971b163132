"""One value of every public noun, with names that try to break out of what shows them."""

from typing import Any

import torch

import steer
from steer.alignment import TensorRow, TensorTable
from steer.extract._moments import Moments
from steer.measure import LevelPreference, Preference, Reliability, Setting, Share, ShareChange
from steer.measure._estimate import mean_of
from steer.selection import Evidence, HeldOutResult, SettingResult
from steer.selection._answers import AnswerPair, Visible
from steer.selection._field import Screened
from tests.store.samples import full
from tests.tiny import tiny_model, tiny_tokenizer

EVIL = "<script>alert(1)</script> & \"'\x00\n\ud800"
NAME = "<b>&'\""  # what a domain of pairs may be called


def vector() -> steer.Vector:
    return steer.Vector.of({1: torch.tensor([3.0, 4.0])})


def activations(layers: int = 3, *, domain: str | None = EVIL) -> steer.Activations:
    generator = torch.Generator().manual_seed(0)
    chosen, rejected = torch.randn(2, 6, layers, 4, generator=generator)
    moments = Moments.of(chosen, rejected, torch.ones(6, layers) * 2, list(range(6)))
    return steer.Activations({(domain, EVIL): moments}, tuple(range(layers)), {}, None, EVIL)


def pairs(count: int = 3) -> steer.Pairs:
    return steer.Pairs.of(steer.Pair(f"{NAME} {k}?", NAME, "no", NAME) for k in range(count))


def sweep(count: int = 9, domains: tuple[str, ...] = (EVIL,)) -> steer.Sweep:
    settings = [Setting(None, None, tuple(k / count for _ in domains)) for k in range(count)]
    measured = [{EVIL: {"n": 4, "accuracy": k / count}} for k in range(count)]
    return steer.Sweep(
        domains, tuple(settings), tuple(measured), "preference", "mean", "branched", "f"
    )


def evidence() -> Evidence:
    return Evidence(0.001, 0.002, 9, 8, 1, 4, 0.4, 0.9)


def selection(strategy: str = "exhaustive", candidate: str = "") -> steer.Selection:
    composition = steer.compose({EVIL: vector()})
    numbers = {EVIL: {"accuracy": 0.5, "margin": 0.0, "likelihood": -1.0}}
    layer = 1 if candidate else None
    tried = [
        SettingResult((k / 9,), k / 9, numbers, k / 9, None, k / 90, None, candidate, layer)
        for k in range(9)
    ]
    held_out = HeldOutResult(Share(9, 10), Share(4, 10), Share(5, 10), None, evidence())
    answers = Visible((AnswerPair(EVIL, "a plain answer", EVIL),))
    return steer.Selection(
        composition(tried[-1].coefficients[0]),
        tried[-1],
        tuple(tried),
        steer.Limits(kl=1.0),
        {EVIL: held_out},
        None,
        answers,
        0.125,
        0.31,
        Screened(9, 4, 8, 0.75) if candidate else None,
        "mean",
        strategy,
    )


def results() -> dict[str, Any]:
    numbers = torch.tensor([0.5, -0.25, 1.0])
    return {
        "Preference": Preference(numbers, torch.zeros(3), "mean"),
        "LevelPreference": LevelPreference(torch.eye(3)[:, :2], (EVIL, "b"), "sum"),
        "Share": Share(1, 4),
        "ShareChange": ShareChange(1, 2, 0, 3),
        "Estimate": mean_of(EVIL, [1.0, 2.0, 4.0]),
        "Reliability": Reliability(
            (0, 1), {EVIL: (mean_of("x", [1.0]), mean_of("x", [2.0]))}, EVIL, 3
        ),
    }


def nouns() -> dict[str, Any]:
    row = TensorRow(f"layers.0.{EVIL}", (2, 3), 2, 0.5, 0.9, 0.1)
    gate = steer.DomainGate((EVIL, "b"), torch.eye(3), 0)
    knobs = steer.compose({EVIL: vector()})
    model = steer.Model(tiny_model("llama", layers=2), tiny_tokenizer())
    return {
        "Model": model,
        "Architecture": model.architecture,
        "Steered": model.steered(steer.Vector.of({0: torch.ones(model.d_model)})),
        "Pairs": pairs(),
        "Pair": pairs()[0],
        "Activations": activations(),
        "Vector": vector(),
        "full Vector": full(),
        "Part": knobs.parts[EVIL],
        "DomainGate": gate,
        "Composition": knobs(0.5),
        "Composition by row": knobs([{EVIL: 1.0}, {EVIL: -0.5}]),
        "Sweep": sweep(),
        "Answers": steer.Answers((EVIL,), {EVIL: (EVIL,), "b": ("c",)}),
        "Selection": selection(),
        "Selection of alternatives": selection("race", EVIL),
        "TensorTable": TensorTable((row,)),
        **results(),
    }
