"""`steer console`."""

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from steer.cli.common import Device, Dtype, ModelName, load_model, plain_console
from steer.cli.composed import composed
from steer.errors import CompositionError


def console(
    model: ModelName,
    vector: Annotated[
        list[str] | None,
        typer.Option("--vector", "-v", help="FILE:COEF; may be given several times."),
    ] = None,
    prompt: Annotated[str, typer.Option(help="What to ask first.")] = "",
    gate: Annotated[bool, typer.Option(help="Use the domain gate stored in the files.")] = False,
    max_new_tokens: Annotated[int, typer.Option(help="Length of an answer.", min=1)] = 64,
    strict: Annotated[bool, typer.Option(help="Refuse vectors of another model family.")] = True,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Turn knobs and ask prompts; the steered answer stands beside the unsteered one."""
    knobs = composed(vector or [], gate)
    if knobs is None:
        raise CompositionError(
            "there is no knob to turn",
            found="no --vector",
            expected="at least one FILE or FILE:COEF",
            do=f"steer console {model} -v FILE",
        )
    from steer.console.knobs import knobs_of
    from steer.console.state import State
    from steer.console.terminal import Terminal
    from steer.console.writer import Writer

    settings = {knob.domain: knob.value for knob in knobs_of(knobs)}
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a line that is no text is refused alone
    writer = Writer(load_model(model, dtype, device), knobs, strict=strict)
    Terminal(writer, State(prompt, settings, max_new_tokens), plain_console()).run()
