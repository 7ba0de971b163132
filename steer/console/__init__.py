"""A console of knobs: turn them and see the text change, in a notebook or in a terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from steer._check import as_integer
from steer.algebra import Composition, Part, Vector
from steer.console._state import State
from steer.errors import TextError

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
        strict: Whether a vector made for another configuration, tokenizer or chat template
            is refused; if not, it is warned of.

    Returns:
        The console.

    Raises:
        MissingExtraError: ipywidgets is not installed.
        CompositionError: There is one row per prompt, or a coefficient or 0 outside the range.
        FitError: A vector does not fit this model.
        TextError: The prompt is no text, or the length no number of tokens.
    """
    from steer.algebra import as_composition
    from steer.console._knobs import knobs_of
    from steer.console._notebook import Console
    from steer.console._writer import Writer

    _check(prompt, max_new_tokens)
    composition = as_composition(what)
    knobs = knobs_of(composition, range)
    return Console(Writer(lm, composition, strict=strict), knobs, prompt, max_new_tokens)


def _check(prompt: object, max_new_tokens: object) -> None:
    if not isinstance(prompt, str):
        raise TextError(
            "a console asks one text at a time",
            found=f"{type(prompt).__name__} {prompt!r}"[:120],
            expected="a string; an empty one asks nothing yet",
            do="pass prompt='…', or type it into the box",
        )
    if (as_integer(max_new_tokens) or 0) < 1:
        raise TextError(
            "this is no length of an answer",
            found=f"max_new_tokens={max_new_tokens!r}"[:120],
            expected="a whole number of tokens, at least 1",
            do="pass for instance max_new_tokens=64",
        )
