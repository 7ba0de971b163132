"""Stage `reliability`: does a measure of a vector predict what the vector does?"""

from collections.abc import Iterator

import steer
from notebooks.study.matters.measured import Explored, scaled, scored
from notebooks.study.rows import Row
from steer.measure import neutral_text, reliability

LAYERS = (6, 10, 14, 18, 22, 26)
MADE_FROM, MEASURED_ON = 40, 12
STRENGTH = 0.1  # of the stream's norm


def predicted(model: steer.Model, what: Explored, seed: int) -> Iterator[Row]:
    """Yield a row for each layer: every measure, the vector's relative norm, and its gain."""
    recording = steer.record(
        model,
        what.train[:MADE_FROM],
        at="response_mean",
        layers=list(LAYERS),
        keep="pairs",
        progress=False,
    )
    vector, text = steer.mean_difference(recording), neutral_text(model)
    agreed = reliability(recording)
    for layer in LAYERS:
        own = scaled(model, {"mean": vector[layer]}, text, layer)
        found = scored(model, own, {"mean": STRENGTH}, what.unseen[:MEASURED_ON])
        measures = {name: round(e.value, 5) for name, e in agreed.at(layer).items()}
        measures["relative norm"] = round(float(vector[layer].norm() / own["mean"].norm()), 5)
        yield {"layer": layer, "measures": measures, "gains": found.gains("mean")}
