"""`steer align`."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steer.cli._common import Precision, Progress, say, working
from steer.errors import AlignmentError, VectorFileError

if TYPE_CHECKING:
    from steer.algebra import Vector


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
    seed: Annotated[int, typer.Option(help="Seed of --dare.")] = 0,
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
    from steer.alignment import alignment_vector, write_alignment_vector
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
            table = write_alignment_vector(base, aligned, out, rank=rank, energy=energy, **taken)
            say(repr(table))
        else:
            vector = alignment_vector(base, aligned, **taken)
            sparse = _sparse(vector, ties, dare, seed)
            sparse.save(out)
            say(sparse)
            say(f"kept {_share(vector, sparse):.1%} of the entries")
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


def _sparse(vector: "Vector", density: float | None, drop: float | None, seed: int) -> "Vector":
    """Return a sparse form, whose entries are ranked over all tensors at once."""
    from steer.alignment import dare, magnitude

    return magnitude(vector, density) if density is not None else dare(vector, drop or 0.0, seed)


def _share(vector: "Vector", sparse: "Vector") -> float:
    """Return the share of the vector's entries that are not zero."""
    from steer.algebra._term import dense

    kept = sum(int(dense(term).count_nonzero()) for term in sparse.terms.values())
    return kept / sum(math.prod(term.shape) for term in vector.terms.values())
