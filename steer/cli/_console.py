"""`steer console`."""

import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated

import typer

from steer.cli._common import (
    REAL,
    TOY,
    Device,
    Dtype,
    Gate,
    Length,
    Progress,
    Strict,
    Vectors,
    load_model,
    plain_console,
    real_model,
    tell,
)
from steer.cli._composed import composed
from steer.errors import CompositionError, SteerError

if TYPE_CHECKING:
    from steer.algebra import Composition
    from steer.model import Model


def console(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Hub id, folder or GGUF file; 'smollm2' for a small instruct model, 'demo' for "
            "the toy that ships. Left out: smollm2, or the toy where that cannot be had."
        ),
    ] = None,
    vector: Vectors = None,
    prompt: Annotated[str, typer.Option(help="What to ask first.")] = "",
    gate: Gate = False,
    max_new_tokens: Length = 64,
    strict: Strict = True,
    progress: Progress = True,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Turn knobs and ask prompts, with steered and unsteered answers side by side.

    The two demo models have knobs of their own, without --vector.
    """
    knobs = composed(vector or [], gate)
    if knobs is None and model not in (None, REAL, TOY):
        raise CompositionError(
            "there is no knob to turn",
            found="no --vector",
            expected="at least one FILE or FILE:COEF",
            do=f"steer console {model} -v FILE",
        )
    from steer.console._knobs import knobs_of
    from steer.console._state import State
    from steer.console._terminal import Terminal
    from steer.console._writer import Writer

    lm, name = _opened(model, dtype, device)
    if knobs is None:
        knobs = _own(lm, name, progress)
    settings = {knob.domain: knob.value for knob in knobs_of(knobs)}
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a line that is no text is refused alone
    writer = Writer(lm, knobs, strict=strict)
    Terminal(writer, State(prompt, settings, max_new_tokens), plain_console()).run()


def _opened(model: str | None, dtype: str, device: str | None) -> "tuple[Model, str]":
    """Return a model and its name: the one named, or the real one, or the toy in its place."""
    if model is not None:
        return load_model(model, dtype, device), model
    found = real_model(dtype, device)
    if not isinstance(found, SteerError):
        return found, REAL
    said = f"This is the toy that ships; {REAL} cannot be had: {found.what} ({found.found})."
    tell(said)
    return load_model(TOY, dtype, device), TOY


def _own(lm: "Model", name: str, progress: bool) -> "Composition":
    from steer.demo.knobs import real_knobs, toy_knobs

    return toy_knobs() if name == TOY else real_knobs(lm, progress=progress)
