"""`steer domains`."""

from pathlib import Path
from typing import Annotated

import typer

from steer.cli._common import Progress, plain_console, spinner, working
from steer.errors import FileError, MissingExtraError


def domains(
    vectors: Annotated[
        Path | None, typer.Option(help="Folder of the demo's alignment vectors; those shipped.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the picture.")] = (
        Path("steer-domains")
    ),
    questions: Annotated[int, typer.Option(help="Test questions per domain.", min=4)] = 30,
    search: Annotated[int, typer.Option(help="Questions per domain to search with.", min=2)] = 4,
    seed: Annotated[int, typer.Option(help="Seed of questions and training.")] = 0,
    progress: Progress = True,
) -> None:
    """Run the alignment-vector experiments on the demo model: weights, residual, and both."""
    from steer.store import folder_made, folder_of

    folder_of(out, FileError)
    console = plain_console()
    with working(progress), spinner("load the demo model", progress) as say:
        from steer.demo import load_model, vectors_path
        from steer.demo.align import load_vectors
        from steer.demo.domains.report import draw, show
        from steer.demo.domains.study import study
        from steer.demo.threads import one_thread

        weights, safety = load_vectors(vectors or vectors_path())
        with one_thread():
            found = study(
                load_model(),
                weights,
                safety,
                n_search=search,
                n_judged=questions,
                seed=seed,
                say=say,
            )
    show(found, console)
    folder_made(out, FileError)
    try:
        draw(found, out / "domains.png")
        console.print(f"saved {out / 'domains.png'}", soft_wrap=True)
    except MissingExtraError as error:
        console.print(str(error), soft_wrap=True)
