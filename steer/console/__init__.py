"""A console of knobs: turn them and see the text change, in a notebook or in a terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from steer._check import integer
from steer.algebra import Composition, Part, Vector
from steer.console._state import State
from steer.errors import ArgumentError

if TYPE_CHECKING:
    from steer.console._notebook import Console
    from steer.model import Model

__all__ = [
    "State",
    "console",
]


def console(
    lm: "Model",
    what: Vector | Part | Composition | Mapping[str, Vector | Part],
    *,
    prompt: str = "",
    range: tuple[float, float] | None = None,
    max_new_tokens: int = 64,
    strict: bool = True,
) -> "Console":
    """Return a console for a notebook: one slider per domain, the text beside the unsteered one.

    As the last line of a cell it shows itself. Its widgets are there to be read and set:
    `box.sliders["medical"].value = 0.5`. `box.close()` ends it.

    Args:
        lm: The model.
        what: A vector, vectors by domain, or a composition; the sliders begin at its coefficients.
        prompt: The first prompt; with an empty one nothing is generated.
        range: Lowest and highest coefficient of every slider, 0 between them. Left out, it is wide
            enough for the coefficients given and those that the vectors were tuned to, or else
            from -1 to 1.
        max_new_tokens: Longest answer, in tokens, at least 1.
        strict: Whether to refuse a vector made for another configuration, tokenizer or chat
            template; if not, a warning is given.

    Raises:
        MissingExtraError: ipywidgets is not installed.
        ArgumentError: The prompt is not a string, the length not a positive integer, or the range
            does not hold 0 and every coefficient.
        CompositionError: There is one row per prompt.
        FitError: A vector does not fit this model.
    """
    from steer.algebra import as_composition
    from steer.console._knobs import knobs_of
    from steer.console._notebook import Console
    from steer.console._writer import Writer

    if not isinstance(prompt, str):
        raise ArgumentError(
            "a console asks one text at a time",
            found=f"{type(prompt).__name__} {prompt!r}"[:120],
            expected="a string; an empty one asks nothing yet",
            do="pass prompt='…', or type it into the box",
        )
    length = integer("max_new_tokens", max_new_tokens, least=1)
    composition = as_composition(what)
    knobs = knobs_of(composition, range)
    return Console(Writer(lm, composition, strict=strict), knobs, prompt, length)
