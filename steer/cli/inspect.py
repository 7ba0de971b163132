"""`steer inspect` and `steer methods`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from steer.cli.common import plain_console


def inspect(
    file: Annotated[Path, typer.Argument(help="A vector file.")],
) -> None:
    """Print what a vector file holds; the file is validated, nothing is executed."""
    from steer.vector import Vector

    plain_console().print(Vector.load(file))


def methods() -> None:
    """List the extraction methods, reading positions and operators."""
    from steer.extract import methods as known
    from steer.operator import operators
    from steer.positions import DEFAULT_AT, POSITIONS

    table = Table("what", "names", "default")
    table.add_row("method", ", ".join(known()), "palrs")
    table.add_row("at", ", ".join(POSITIONS), ", ".join(DEFAULT_AT))
    table.add_row("operator", ", ".join(operators()), "add")
    plain_console().print(table)
