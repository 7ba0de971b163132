"""One value of every public noun, with names that try to break out of what shows them."""

from typing import Any

import torch

import steer
from steer.alignment import TensorRow, TensorTable
from steer.choice import Trial
from steer.evaluate.estimate import mean_of
from steer.evaluate.interval import Share, ShareChange
from steer.evaluate.levels import LevelPreference
from steer.evaluate.preference import Preference
from steer.evaluate.reliability import Reliability
from steer.moments import Moments
from steer.search.significance import Evidence
from steer.search.tried import Tried
from steer.sweeps.grid import Setting
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


def choice() -> steer.Choice:
    trials = [Trial(EVIL, k % 2, k / 9, k / 9, -1.0, 0.1) for k in range(9)]
    shares = {"base": Share(4, 10), "random": Share(5, 10)}
    return steer.Choice(
        vector(), trials[-1], tuple(trials), 0.5, Share(9, 10), shares, "mean", evidence()
    )


def selection() -> steer.Selection:
    composition = steer.compose({EVIL: vector()})
    tried = [Tried((k / 9,), k / 9, {EVIL: {"accuracy": k / 9, "margin": 0.0}}, k / 9, None, k / 90)
             for k in range(9)]  # fmt: skip
    tests = {EVIL: Share(9, 10)}
    return steer.Selection(
        composition(tried[-1].coefficients[0]), tried[-1], tuple(tried), steer.Limits(kl=1.0), 9, 9,
        tests, {EVIL: {"base": Share(5, 10)}}, {EVIL: evidence()}, "mean", "grid",
    )  # fmt: skip


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
        "Choice": choice(),
        "Selection": selection(),
        "TensorTable": TensorTable((row,)),
        **results(),
    }
