"""How much the pairs of a vector agree, layer by layer."""

from steer.measure import Reliability
from steer.report._charts.lines import Point, lines
from steer.report._html import figure, figures, numbers


def reliability(result: Reliability) -> str:
    """Return cosines and d′ against the layer, with their intervals.

    Args:
        result: What `steer.measure.reliability` returned.
    """
    curves: dict[str, list[Point]] = {
        name: [
            (float(layer), one.value, *one.interval)
            for layer, one in zip(result.layers, found, strict=True)
        ]
        for name, found in result.measures.items()
    }
    cosines = {name: points for name, points in curves.items() if "cosine" in name}
    others = {name: points for name, points in curves.items() if "cosine" not in name}
    axis = "layer (output of block)"
    pictures = [lines(cosines, axis, "cosine")] if cosines else []
    pictures += [lines({name: points}, axis, name) for name, points in others.items()]
    caption = f"{result.pairs} pairs, read at {result.position}"
    return figures([figure(picture, caption) for picture in pictures]) + numbers(result.rows)
