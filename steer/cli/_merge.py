"""`steer merge`."""

from pathlib import Path
from typing import Annotated

import typer

from steer.cli._common import REAL, Progress, plain_console, working
from steer.cli._composed import file_and_coefficients
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
    parts = [_part(argument) for argument in vector]
    with working(progress):
        merge_checkpoint(_folder(model), parts, out, strict=strict, progress=progress)
        plain_console().print(f"written: {out}", soft_wrap=True)


def _folder(model: str) -> str | Path:
    from steer.demo import MODEL_PATH, smollm2

    if model == REAL:
        return smollm2.model_folder()
    return MODEL_PATH if model == "demo" else model


def _part(argument: str) -> tuple[str, float]:
    path, given = file_and_coefficients(argument)
    if given is not None and len(given) > 1:
        raise MergeError(
            "a checkpoint has one coefficient of each vector",
            found=argument,
            expected="FILE:COEF with one number",
            do="write a checkpoint for each",
        )
    return str(path), 1.0 if given is None else given[0]
