"""`steer merge`."""

from pathlib import Path
from typing import Annotated

import typer

from steer.cli._common import Progress, place_of, say, working
from steer.cli._composed import file_and_coefficient
from steer.errors import MergeError


def merge(
    model: Annotated[str, typer.Argument(help="Hub id or folder, 'smollm2' or 'demo'.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to write, new or empty.")],
    vector: Annotated[
        list[str] | None,
        typer.Option(
            "--vector",
            "-v",
            help="FILE:COEF; may be given several times. A vector file, or the folder or id of an "
            "aligned model. Without COEF: 1.",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option(help="Refuse vectors of another model family.")] = True,
    progress: Progress = True,
) -> None:
    """Write a checkpoint with weight vectors merged into it, shard by shard."""
    from steer.merge import merge_checkpoint

    if not vector:
        raise MergeError(
            "there is nothing to merge",
            found="no --vector",
            expected="at least one FILE:COEF",
            do=f"steer merge {model} -v FILE:COEF -o {out}",
        )
    parts = [(str(path), 1.0 if c is None else c) for path, c in map(file_and_coefficient, vector)]
    with working(progress):
        merge_checkpoint(place_of(model), parts, out, strict=strict, progress=progress)
        say(f"written: {out}")
