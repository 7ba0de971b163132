"""Stage `make`: each method makes its knob from the training pairs, chosen on the validation pairs.

Every unit runs in a process of its own, so that its CPU time and its peak memory are its own.
"""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import steer
from notebooks.study.behaviours import Behaviour
from notebooks.study.clock import peak
from steer.errors import SelectionError

KL = 0.5  # nats per token of neutral text, the budget of every knob
RANK = 8  # of a LoRA
EPOCHS, BATCH = 3, 8
RATES = (3e-4, 1e-3)  # learning rates, chosen between on the validation pairs
LOSSES = {"dpo": ("sigmoid", 0.1), "ipo": ("ipo", 0.3)}  # TRL's name, and beta
CONFIRM = 8  # validation pairs that `select` tests its choice on

Made = tuple[steer.Vector, dict[str, Any]]


def make(
    model: steer.Model, own: Behaviour, method: str, folder: Path, seed: int
) -> dict[str, Any]:
    """Make one knob, save it, and return its setting and cost."""
    before, start = peak(), time.process_time()
    vector, setting = METHODS[method](model, own, seed)
    seconds = time.process_time() - start
    path = folder / f"{own.name}-{method}.safetensors"
    vector.save(path)
    return {
        "behaviour": own.name,
        "source": own.source,
        "method": method,
        "seed": seed,
        "pairs": len(own.train),
        "pairs_fingerprint": own.train.fingerprint,
        **setting,
        "cpu_seconds": round(seconds, 1),
        "extra_peak_mb": round((peak() - before) / 2**20),
        "file": path.name,
    }


def spending(model: steer.Model, vector: steer.Vector) -> float:
    """Return the coefficient that spends the KL budget, the largest tried where none does."""
    most = 8.0
    try:
        return steer.calibrate(model, vector, KL, most=most, progress=False)
    except SelectionError:
        return most


def _palrs(model: steer.Model, own: Behaviour, seed: int) -> Made:
    recording = steer.record(model, own.train, at="template", progress=False)
    vector = steer.palrs(recording)
    setting = {
        "position": vector.provenance.arguments["position"],
        "layer": vector.layers[0],
        "coefficient": spending(model, vector),
    }
    return vector, setting


def _chosen(model: steer.Model, own: Behaviour, candidates: Any, seed: int) -> Made:
    found = steer.select(
        model,
        candidates,
        own.validation[:-CONFIRM],
        test=own.validation[-CONFIRM:],
        limits=steer.Limits(kl=KL),
        answers=False,
        seed=seed,
        progress=False,
    )
    vector = found.vector if found.layer is None else found.vector[found.layer]
    rank = math.nan if found.screened is None else found.screened.correlation
    setting = {
        "position": found.position,
        "layer": found.layer,
        "coefficient": found.coefficient,
        "screen_correlation": None if math.isnan(rank) else rank,
    }
    return vector, setting


def _mean(model: steer.Model, own: Behaviour, seed: int) -> Made:
    return _chosen(model, own, steer.record(model, own.train, progress=False), seed)


def _gradient(model: steer.Model, own: Behaviour, seed: int) -> Made:
    return _chosen(model, own, steer.preference_gradient(model, own.train, progress=False), seed)


def _tuned(method: str) -> Callable[[steer.Model, Behaviour, int], Made]:
    loss, beta = LOSSES[method]

    def tuned(model: steer.Model, own: Behaviour, seed: int) -> Made:
        steps = -(-EPOCHS * len(own.train) // BATCH)
        tried: dict[float, tuple[float, steer.Vector]] = {}
        for rate in RATES:
            with TemporaryDirectory() as folder:
                aligned = steer.preference_tune(
                    model,
                    own.train,
                    loss=loss,  # type: ignore[arg-type]  # one of TRL's names
                    beta=beta,
                    learning_rate=rate,
                    steps=steps,
                    batch_size=BATCH,
                    lora_rank=RANK,
                    adapter=folder,
                    seed=seed,
                    progress=False,
                )
                margin = steer.preference(aligned, own.validation).margin
                vector = steer.alignment_vector(
                    model, folder, domain=own.name, dtype=torch.float16, progress=False
                )
            tried[rate] = (margin, vector)
        rate = max(tried, key=lambda r: tried[r][0])
        vector = tried[rate][1]
        setting = {
            "learning_rate": rate,
            "validation_margins": {f"{r:g}": m for r, (m, _) in tried.items()},
            "steps": steps,
            "beta": beta,
            "rank": RANK,
            "coefficient": spending(model, vector),
        }
        return vector, setting

    return tuned


METHODS: Mapping[str, Callable[[steer.Model, Behaviour, int], Made]] = {
    "palrs": _palrs,
    "mean": _mean,
    "gradient": _gradient,
    "dpo": _tuned("dpo"),
    "ipo": _tuned("ipo"),
}
BRIEF = ("palrs", "mean", "gradient")  # of behaviours that are not studied in full
