"""Everything that writes a file under a name that the user gives."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

import steer
from steer.algebra import VectorWriter
from steer.harness import HarnessResult
from steer.report import Report, Section
from tests.extract.reference import some_pairs, tiny
from tests.measure.setting import model, pairs
from tests.store.samples import full
from tests.tiny import tiny_model

Writer = Callable[[Any], object]


@cache
def activations() -> steer.Activations:
    """A recording."""
    return steer.record(tiny(), some_pairs(4), "template", progress=False)


@cache
def checkpoint() -> Path:
    """A model's folder."""
    folder = Path(mkdtemp())
    tiny_model("llama", layers=2).save_pretrained(folder)
    return folder


def picture() -> Any:
    """A picture without a window, as every view draws one."""
    from steer.view._picture import Picture

    return Picture(figsize=(1, 1))


def streamed(path: Any) -> None:
    """Write a vector term by term."""
    vector = full().weight
    with VectorWriter(path, vector) as writer:
        for site, term in vector.terms.items():
            writer.add(site, term)
        writer.finish(vector.provenance)


def swept(path: Any) -> steer.Sweep:
    """Sweep one setting, saved to a file."""
    vector = steer.Vector.of({1: torch.ones(model().architecture.d_model)})
    return steer.sweep(model(), vector, pairs(), [0.5], save=path, progress=False)


def result() -> HarnessResult:
    """A result of a harness with one item."""
    item = {"doc_id": 0, "filter": "none", "acc": 1.0, "text": "x" * 5000}
    scores = {"task": {"acc,none": 1.0, "acc_stderr,none": 0.1, "sample_len": 1}}
    settings = {"composition": "none"}
    return HarnessResult({"steered": scores}, {"steered": {"task": [item]}}, settings)


FILES: dict[str, tuple[str, Writer]] = {
    "vector": ("v.safetensors", lambda path: full().save(path)),
    "vector by terms": ("v.safetensors", streamed),
    "recording": ("a.safetensors", lambda path: activations().save(path)),
    "pairs": ("p.jsonl", lambda path: (pairs() + some_pairs(20)).save(path)),
    "report": ("r.html", lambda path: Report("T", (Section("S", "x" * 5000),)).save(path)),
    "picture": ("p.png", lambda path: picture().savefig(path)),
}
FOLDERS: dict[str, Writer] = {
    "result of a harness": lambda path: result().save(path),
    "merged checkpoint": lambda path: steer.merge_checkpoint(
        checkpoint(), [], path, progress=False
    ),
}
