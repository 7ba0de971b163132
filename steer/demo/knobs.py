"""The knobs of the demo models in a console."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steer.algebra import Composition
    from steer.model import Model

_LAYER = 16  # of 30, where the mean difference at response_mean steers most
_SCALE = 1.5  # of that difference; at 1 the knob costs a KL of a little below 0.5


def toy_knobs() -> "Composition":
    """Return the toy's shipped vectors behind their gate, all at 0."""
    from steer.algebra import Vector, compose
    from steer.demo import vectors_path
    from steer.demo.data import DOMAINS

    vectors = {d: Vector.load(vectors_path() / f"{d}.safetensors") for d in DOMAINS}
    return compose(vectors, gate=vectors[DOMAINS[0]].gate)(0.0)


def real_knobs(model: "Model", *, progress: bool = True) -> "Composition":
    """Return a knob `cheerful` of `smollm2.load()` at 1, made from its pairs in a few seconds."""
    from steer.algebra import compose
    from steer.demo.real.behaviours import pairs
    from steer.extract import mean_difference, record

    at = {"at": "response_mean", "layers": [_LAYER]}
    recording = record(model, pairs("cheerful"), **at, progress=progress)  # type: ignore[arg-type]
    return compose({"cheerful": mean_difference(recording) * _SCALE})(1.0)
