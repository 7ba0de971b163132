"""The card of a reliability: every measure layer by layer, as curves and as a table."""

from typing import TYPE_CHECKING

from steer.show.card import Card, Curves
from steer.show.rows import table_of

if TYPE_CHECKING:
    from steer.evaluate.reliability import Reliability


def reliability_card(found: "Reliability") -> Card:
    """Return the card of a reliability.

    Args:
        found: The reliability.
    """
    wide = [
        {"layer": str(layer), **{name: str(e) for name, e in found.at(layer).items()}}
        for layer in found.layers
    ]
    curves = [
        Curves(
            name,
            "layer",
            {"": tuple((float(k), e.value) for k, e in zip(found.layers, values, strict=True))},
        )
        for name, values in found.measures.items()
    ]
    said = f"Reliability of {found.pairs} pairs at {found.position}"
    return Card(said, (), (table_of(wide), *curves))
