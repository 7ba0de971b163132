"""Cards of what is no plain table: a reliability, layer by layer, and neutral text."""

from typing import TYPE_CHECKING

from steer.measure._judge.protocol import prompt_text
from steer.show import Card, Curves
from steer.show._rows import table_of

if TYPE_CHECKING:
    from steer.measure._kl import NeutralText
    from steer.measure._reliability import Reliability


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


def neutral_card(text: "NeutralText") -> Card:
    """Return the card of neutral text: every prompt with its response, without the logits.

    Args:
        text: The text.
    """
    rows = [
        {"prompt": prompt_text(prompt), "response": response, "tokens": len(logits)}
        for prompt, response, logits in zip(text.prompts, text.responses, text.logits, strict=True)
    ]
    said = f"Neutral text: {len(rows)} responses of {text.tokens} tokens"
    return Card(said, (), (table_of(rows),))
