"""`steer align`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from steer.cli._common import MOST_SEED, Precision, Progress, say, working
from steer.errors import AlignmentError, VectorFileError


def align(
    base: Annotated[str, typer.Argument(help="The model before alignment: Hub id or directory.")],
    aligned: Annotated[
        str, typer.Argument(help="The model after it, or a LoRA adapter: Hub id or directory.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    rank: Annotated[int | None, typer.Option(help="Reduce every matrix to this rank.")] = None,
    energy: Annotated[
        float | None, typer.Option(help="Reduce every matrix to the rank that keeps this share.")
    ] = None,
    ties: Annotated[
        float | None,
        typer.Option(
            help="Keep this share of the entries, the largest: the trimming step of TIES alone. "
            "With one vector no sign is elected; steer.ties merges several."
        ),
    ] = None,
    dare: Annotated[
        float | None, typer.Option(help="Drop entries with this probability (DARE).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of --dare.", min=0, max=MOST_SEED)] = 0,
    domain: Annotated[str | None, typer.Option(help="Domain of the alignment.")] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(help="Shell pattern of parameter names to take; may be given several times."),
    ] = None,
    dtype: Annotated[
        Precision,
        typer.Option(help="Precision of the vector; float32 is exact, bfloat16 half the size."),
    ] = "float32",
    strict: Annotated[
        bool, typer.Option(help="Refuse another configuration, tokenizer or chat template.")
    ] = True,
    progress: Progress = True,
) -> None:
    """Write the difference of two models' weights, or of an adapter, as a vector."""
    forms = {"--rank": rank, "--energy": energy, "--ties": ties, "--dare": dare}
    given = [name for name, value in forms.items() if value is not None]
    if len(given) > 1:
        raise AlignmentError(
            "more than one form was asked for",
            found=" and ".join(given),
            expected="at most one of " + ", ".join(forms),
            do="write one file, load it, and apply the second form with steer.alignment",
        )
    from steer import alignment
    from steer.model._loading.options import PRECISIONS
    from steer.store import folder_made, target_of

    target_of(out, VectorFileError)
    taken: Any = {
        "domain": domain,
        "include": include or None,
        "dtype": PRECISIONS[dtype],
        "strict": strict,
        "progress": progress,
    }
    _check_outside(out, base, aligned)
    folder_made(out.parent, VectorFileError)
    with working(progress):
        if ties is None and dare is None:
            table = alignment.write_alignment_vector(
                base, aligned, out, rank=rank, energy=energy, **taken
            )
            say(repr(table))
        else:
            vector = alignment.alignment_vector(base, aligned, **taken)
            if ties is not None:
                vector = alignment.magnitude(vector, ties)
            if dare is not None:
                vector = alignment.dare(vector, dare, seed)
            vector.save(out)
            say(vector)
        say(f"saved {out}")


def _check_outside(out: Path, *models: str) -> None:
    """Refuse to write into the folder of a model that is read."""
    for side in models:
        if os.path.exists(side) and out.resolve().is_relative_to(Path(side).resolve()):
            raise VectorFileError(
                "the vector would be written into one of the models",
                found=str(out),
                expected=f"a file outside {side}",
                do="choose another file: -o vector.safetensors",
            )
