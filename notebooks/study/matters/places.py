"""Stage `map`: where is a direction read, and where does it act? Each place at the same KL."""

from collections.abc import Iterator

import steer
from notebooks.study.matters.measured import Explored, at_budget, scaled, scored
from notebooks.study.rows import Row, find
from steer.measure import neutral_text

POSITIONS = ("template[-1]", "template[-5]", "response_mean")
LAYERS = range(2, 30, 3)


def places(model: steer.Model, what: Explored, seed: int) -> Iterator[Row]:
    """Yield a row for each position and layer, and for the place that PaLRS's rule picked."""
    picked = find("make", behaviour=what.own.name, method="palrs")
    wanted = {(position, layer) for position in POSITIONS for layer in LAYERS}
    palrs = {(str(picked["position"]), int(picked["layer"]))} if picked else set()
    positions = list(dict.fromkeys([*POSITIONS, *(position for position, _ in palrs)]))
    layers = sorted({layer for _, layer in wanted | palrs})
    recording = steer.record(model, what.train, at=positions, layers=layers, progress=False)
    vectors = {p: steer.mean_difference(recording, position=p) for p in positions}
    text = neutral_text(model)
    for layer in layers:
        raw = {p: vectors[p][layer] for p in positions if (p, layer) in wanted | palrs}
        own = scaled(model, raw, text, layer)
        coefficients = at_budget(model, own, what.unseen, text)
        found = scored(model, own, coefficients, what.unseen)
        for position, c in coefficients.items():
            yield {
                "position": position,
                "layer": layer,
                "palrs": (position, layer) in palrs,
                "coefficient": c,
                "gains": found.gains(position),
            }
