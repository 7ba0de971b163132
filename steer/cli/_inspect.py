"""`steer inspect` and `steer methods`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from steer.cli._common import AsJson, print_json, say


def inspect(
    file: Annotated[Path, typer.Argument(help="A vector file.")],
    as_json: AsJson = False,
) -> None:
    """Print what a vector file holds; the file is validated, nothing is executed."""
    from steer.algebra import Vector, inspect_header
    from steer.demo.real.claim import claim_of

    vector = Vector.load(file)
    if as_json:
        print_json(inspect_header(file))
        return
    say(vector)
    if claim := claim_of(vector):
        below, unsteered, above = (claim.share(claim.behaviour, sign) for sign in (-1, 0, 1))
        say(
            f"Claim: {claim.behaviour} answers {unsteered} unsteered, {above} at "
            f"{claim.coefficient:.3g}, {below} at {-claim.coefficient:.3g}; steer check measures it"
        )


def methods() -> None:
    """List the extraction methods, reading positions, operators and exchange formats."""
    from steer.algebra import operators
    from steer.exchange import formats
    from steer.extract import POSITIONS
    from steer.extract import methods as known
    from steer.extract._positions import DEFAULT_AT

    table = Table("what", "names", "default")
    table.add_row("method", ", ".join(known()), "mean_difference")
    table.add_row("at", ", ".join(POSITIONS), ", ".join(DEFAULT_AT))
    table.add_row("operator", ", ".join(operators()), "add")
    table.add_row("format", ", ".join(formats()), "by the file's ending")
    say(table)
