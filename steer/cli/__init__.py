"""The command line: one file per command."""

import io
import sys
import warnings
from typing import Any

import typer

from steer.cli._advice import Command
from steer.cli._align import align
from steer.cli._check import check
from steer.cli._common import tell
from steer.cli._console import console
from steer.cli._demo import demo
from steer.cli._eval import evaluate
from steer.cli._exchange import export, import_vector
from steer.cli._extract import extract
from steer.cli._generate import generate
from steer.cli._inspect import inspect, methods
from steer.cli._merge import merge
from steer.cli._report import report
from steer.errors import SteerError

app = typer.Typer(
    help="A language model's behaviour as a set of knobs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    align,
    check,
    console,
    demo,
    export,
    extract,
    generate,
    inspect,
    merge,
    methods,
    report,
):
    app.command(cls=Command)(command)
app.command("eval", cls=Command)(evaluate)
app.command("import", cls=Command)(import_vector)


def main() -> None:
    """Run the command line; an error of this library ends it with its message and status 1.

    Warnings are printed without the place in the code that they come from. Characters outside the
    terminal's encoding are printed as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = _warned
        try:
            app()
        except (SteerError, OSError) as error:
            tell(f"{type(error).__name__}: {error}", style="red")
            raise SystemExit(1) from None


def _warned(message: Warning | str, *_: Any, **__: Any) -> None:
    tell(f"Warning: {message}", style="yellow")
