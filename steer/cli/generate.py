"""`steer generate`."""

import sys
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from steer.cli.common import Device, Dtype, ModelName, load_model, plain_console
from steer.cli.composed import composed
from steer.errors import TextError
from steer.show.markup import terminal_text


def generate(
    model: ModelName,
    prompts: Annotated[list[str] | None, typer.Argument(help="Prompts; none: stdin lines.")] = None,
    vector: Annotated[
        list[str] | None,
        typer.Option("--vector", "-v", help="FILE:COEF; may be given several times."),
    ] = None,
    gate: Annotated[bool, typer.Option(help="Use the domain gate stored in the files.")] = False,
    scope: Annotated[
        str | None,
        typer.Option(help="all, prompt, response, last_prompt, after:MARKER or before:MARKER."),
    ] = None,
    operator: Annotated[str | None, typer.Option(help="add or ablate.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Length of an answer.", min=1)] = 64,
    compare: Annotated[bool, typer.Option(help="Print the unsteered answer as well.")] = False,
    strict: Annotated[bool, typer.Option(help="Refuse vectors of another model family.")] = True,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Generate answers with vectors injected."""
    knobs = composed(vector or [], gate)
    asked = prompts or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not asked:
        raise TextError(
            "there is no prompt",
            found="no argument and nothing on standard input",
            expected="at least one prompt",
            do="steer generate MODEL -v FILE:COEF 'a prompt'",
        )
    lm = load_model(model, dtype, device)
    plain = lm.generate(asked, max_new_tokens=max_new_tokens) if compare or knobs is None else None
    steered = None
    if knobs is not None:
        with lm.steered(knobs, scope=scope, operator=operator, strict=strict):
            steered = lm.generate(asked, max_new_tokens=max_new_tokens)
    _print_answers(asked, plain, steered)


def _print_answers(asked: list[str], plain: list[str] | None, steered: list[str] | None) -> None:
    console = plain_console()
    if plain is not None and steered is not None:
        table = Table("prompt", "unsteered", "steered", show_lines=True)
        for row in zip(asked, plain, steered, strict=True):
            table.add_row(*(Text(terminal_text(text)) for text in row))
        console.print(table)
        return
    for text in steered or plain or []:
        console.print(terminal_text(text), soft_wrap=True)
