"""What a format says that it carries, and what it says that it does not, as vectors."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch

from steer.algebra import (
    Dense,
    Direction,
    DomainGate,
    LowRank,
    ModelInfo,
    Part,
    Provenance,
    Residual,
    Scope,
    Tuning,
    Vector,
    Weight,
    compose,
)
from steer.alignment import alignment_vector
from steer.exchange import Format
from tests.tiny import tiny_model

WIDTH = 8
N_LAYERS = 8


def carried(format: Format, seed: int = 0) -> Vector:
    """Return a vector of the kind that the format carries, with a domain and a coefficient."""
    model = ModelInfo("tiny", None, N_LAYERS, WIDTH, "c", "t", "t")
    made = Provenance("mean_difference", domain="medical", model=model, version="0.1.0")
    if format.terms == "factors":
        return Vector(_factors(seed), made)
    if format.terms == "models":
        return _whole_difference(seed)
    layers = [format.lowest + 2] if format.single else [format.lowest, format.lowest + 3]
    torch.manual_seed(seed)
    terms = {Residual(layer): Direction(torch.randn(WIDTH)) for layer in layers}
    return Vector(terms, made, tuning=Tuning(layers[0] if format.single else None, 0.5))


def refused(format: Format) -> dict[str, Any]:
    """Return what the format must refuse, by a few words that say what it is."""
    vector = carried(format)
    weights = Vector({Weight("model.layers.0.mlp.down_proj.weight"): Dense(torch.ones(4, 4))})
    directions = Vector.of({layer: torch.ones(WIDTH) for layer in (2, 3)})
    gate = DomainGate(("medical",), torch.eye(2, WIDTH), 0)
    setting = compose({"medical": vector})
    found = {
        "dense weights": weights,
        "directions and weights": Vector({**directions.terms, **_factors(0)}),
        "rows": setting([{"medical": 1.0}, {"medical": 0.0}]),
        "a gate": setting.gated(gate),
        "some tokens": Part(vector, scope=Scope("response")),
    }
    if format.terms == "models":
        del found["dense weights"]
        return {**found, "directions": directions, "nameless weights": weights}
    if format.terms == "factors":
        return {**found, "directions": directions}
    found |= {
        "low-rank weights": Vector(_factors(0)),
        "another operator": Part(vector, "ablate"),
        "tuned for another operator": replace(vector, tuning=Tuning(None, 1.0, "ablate")),
        "tuned for some tokens": replace(vector, tuning=Tuning(None, 1.0, scope=Scope("prompt"))),
    }
    huge = torch.full((WIDTH,), 1e300, dtype=torch.float64)
    found["values beyond its precision"] = Vector.of({format.lowest + 2: huge})
    if format.lowest >= 0:
        found["a layer too low"] = Vector.of({format.lowest - 1: torch.ones(WIDTH)})
    return found | ({"two layers": directions} if format.single else {})


def options(
    format: Format, action: Literal["write", "read"], vector: Vector, tmp_path: Path
) -> dict[str, Any]:
    """Return a value for each option that the format needs."""
    values: dict[str, Callable[[], Any]] = {
        "base": lambda: base(format, tmp_path.parent / f"base of {tmp_path.name}"),
        "row": lambda: 1,
        "layer": lambda: vector.layers[0],
    }
    known = format.options(action).items()
    return {name: values[name]() for name, option in known if option.default is option.empty}


def base(format: Format, folder: Path) -> Path:
    """Return the folder of a tiny model, which is written if it is not there."""
    if not folder.exists():
        family = "llama" if format.terms == "factors" else "gpt2"  # gpt2 has biases
        tiny_model(family, layers=4, width=WIDTH).save_pretrained(folder)
    return folder


@lru_cache
def _folders() -> list[Path]:
    """Return a model's folder, and those of two siblings."""
    folder = Path(tempfile.mkdtemp(prefix="models of an exchange format "))
    atexit.register(shutil.rmtree, folder)
    for seed in range(3):
        tiny_model("llama", layers=1, width=WIDTH, seed=seed).save_pretrained(folder / str(seed))
    return [folder / str(seed) for seed in range(3)]


def _whole_difference(seed: int) -> Vector:
    first, *others = _folders()
    return alignment_vector(first, others[seed], domain="medical", progress=False)


def _factors(seed: int) -> dict[Weight, LowRank]:
    generator = torch.Generator().manual_seed(seed)
    names = [f"model.layers.{n}.mlp.down_proj.weight" for n in range(2)]
    shapes = ((8, 2), (2, 16))
    return {
        Weight(name): LowRank(*(torch.randn(shape, generator=generator) for shape in shapes))
        for name in names
    }
