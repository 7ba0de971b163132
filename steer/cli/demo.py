"""`steer demo`."""

from pathlib import Path
from typing import Annotated

import typer

from steer.cli.common import plain_console
from steer.errors import FileError


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for vectors and picture.")] = (
        Path("steer-demo")
    ),
    pairs: Annotated[int, typer.Option(help="Preference pairs per domain.", min=2)] = 100,
    questions: Annotated[int, typer.Option(help="Test questions per domain.", min=4)] = 30,
    seed: Annotated[int, typer.Option(help="Seed of pairs, questions and splits.")] = 0,
) -> None:
    """Extract, choose, steer and judge on the small model that ships with the library."""
    from steer.files import folder_of

    folder_of(out, FileError)
    console = plain_console()
    with console.status("load the demo model") as status:
        from steer.demo import load_model
        from steer.demo.plot import text_plot
        from steer.demo.report import save, show, timing
        from steer.demo.study import study
        from steer.demo.threads import one_thread

        with one_thread():
            found = study(
                load_model(), n_pairs=pairs, n_questions=questions, seed=seed, say=status.update
            )
        written = save(found, out)
    show(found, console)
    timing(found, console)
    if not any(path.suffix == ".png" for path in written):
        for domain in found.vectors:
            console.print(text_plot(found, domain), soft_wrap=True)
        hint = "No picture was drawn. For one: pip install 'residual-steer[plot]'"
        console.print(hint, soft_wrap=True)
    for path in written:
        console.print(f"saved {path}", soft_wrap=True)
    console.print("This model is a toy: it shows the mechanics, its figures are not to be quoted.")
