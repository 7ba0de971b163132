"""Stage `inside`: what does an alignment vector do to the stream, and is that what it works by?

Per layer: how far it moves the stream along answers, how that lies to the mean difference, how
much of its gain its mean displacement brings alone, and how much is left without it.
"""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

import steer
from notebooks.study.matters.measured import Explored, scored
from notebooks.study.rows import Row, find
from steer import view
from steer.measure import preference, random_like

LAYERS = (2, 6, 10, 14, 18, 22, 26)


def inside(model: steer.Model, what: Explored, seed: int, work: Path) -> Iterator[Row]:
    """Yield a row for the alignment vector, and one for each layer."""
    made = find("make", behaviour=what.own.name, method="dpo")
    if made is None:
        raise SystemExit(f"no alignment vector of {what.own.name}: run make --methods dpo first")
    vector, c = steer.Vector.load(work / made["file"]), made["coefficient"]
    recording = steer.record(model, what.train, at="response_mean", progress=False)
    mean = steer.mean_difference(recording)
    prompts = [pair.prompt for pair in what.unseen] * 2
    answers = [pair.chosen for pair in what.unseen] + [pair.rejected for pair in what.unseen]
    moved = view.displacement(
        model, vector, prompts, c, responses=answers, tokens="response", against=mean
    )
    before = preference(model, what.unseen).margins
    with model.steered(vector, c):
        after = preference(model, what.unseen).margins
    yield {"layer": None, "method": "dpo", "coefficient": c, "gains": _list(after - before)}
    for layer in LAYERS:
        alone = steer.Vector.of({layer: moved.mean[layer].float()})
        beside = {
            "displacement": alone,
            "mean of its norm": mean[layer] * float(alone.norm() / mean[layer].norm()),
            "random of its norm": random_like(alone, seed),
        }
        found = scored(model, beside, dict.fromkeys(beside, 1.0), what.unseen)
        with model.steered(vector, c), model.steered(alone, -1.0):
            without = preference(model, what.unseen).margins
        yield {
            "layer": layer,
            "relative": moved.relative[layer].value,
            "common": float(moved.common[layer]),
            "cosine": moved.cosine[layer].value,
            "gains": {name: found.gains(name) for name in beside},
            "gains_without": _list(without - before),
        }


def _list(values: Tensor) -> list[float]:
    return [round(float(x), 5) for x in values]
