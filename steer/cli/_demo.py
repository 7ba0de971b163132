"""`steer demo`."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from steer.cli._common import load_model, plain_console
from steer.errors import CheckpointError, FileError, MissingExtraError

if TYPE_CHECKING:
    from steer.model import Model


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for vectors and picture.")] = (
        Path("steer-demo")
    ),
    toy: Annotated[bool, typer.Option("--toy", help="Use the toy model that ships.")] = False,
    model: Annotated[
        str | None, typer.Option(help="Another instruct model: Hub id, folder or GGUF file.")
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(help="Training pairs per domain; 36, or 100 for the toy.", min=8)
    ] = None,
    questions: Annotated[
        int | None, typer.Option(help="Questions answered; 10, or 20 for the toy.", min=4)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of splits and random directions.")] = 0,
) -> None:
    """Record, choose, steer and judge: on SmolLM2-135M-Instruct, another model, or a toy."""
    from steer.demo.threads import one_thread
    from steer.store import folder_of

    if toy and model is not None:
        raise typer.BadParameter("--toy is a model already", param_hint="--model")
    folder_of(out, FileError)
    console = plain_console()
    with one_thread():
        lm = None if toy else _instruct(model, console)
        if lm is None:
            _toy(out, pairs or 100, questions or 20, seed, console)
        else:
            _real(lm, out, pairs, questions, seed, console)


def _instruct(name: str | None, console: Console) -> "Model | None":
    """Return the model named, or SmolLM2; None, and a line that says so, where it cannot be had."""
    from steer.demo import smollm2

    with console.status(f"load {name or smollm2.NAME}"):
        if name is not None:
            return load_model(name, "auto", None)
        try:
            return smollm2.load()
        except (CheckpointError, MissingExtraError) as error:
            if os.environ.get(smollm2.OVERRIDE):  # a model that was named is not replaced
                raise
            reason = f"{error.found}; {error.do}"
    console.print(
        f"The toy model runs, since {smollm2.NAME} cannot be had: {reason}", soft_wrap=True
    )
    return None


def _real(
    lm: "Model", out: Path, pairs: int | None, questions: int | None, seed: int, console: Console
) -> None:
    """Run the study on an instruct model, and print and save what it found."""
    from steer.demo.real.behaviours import ASKED, TRAINING
    from steer.demo.real.report import save, show
    from steer.demo.real.study import Size, study

    size = Size()
    for option, given, most in (("pairs", pairs, TRAINING), ("questions", questions, len(ASKED))):
        if given is not None and given > most:
            raise typer.BadParameter(f"there are {most}", param_hint=f"--{option}")
    if pairs is not None:
        size = replace(size, pairs=pairs)
    if questions is not None:
        size = replace(size, asked=questions, kinds=questions)
    start = time.perf_counter()

    def say(step: str) -> None:
        console.print(f"{_cpu():>10}  {step}", soft_wrap=True)

    found = study(lm, size, seed=seed, progress=True, say=say)
    show(found, console)
    written, hint = save(found, out)
    _saved(written, hint, console)
    wall = time.perf_counter() - start
    console.print(
        f"{lm.info.model_id}: {_cpu()} in all, with one thread; {wall:.0f} s of wall time"
    )


def _toy(out: Path, pairs: int, questions: int, seed: int, console: Console) -> None:
    """Run the study on the toy, and print and save what it found."""
    with console.status("load the toy model") as status:
        from steer.demo import load_model as load_toy
        from steer.demo.plot import text_plot
        from steer.demo.report import save, show, timing
        from steer.demo.study import study

        found = study(
            load_toy(), n_pairs=pairs, n_questions=questions, seed=seed, say=status.update
        )
        written = save(found, out)
    show(found, console)
    timing(found, console)
    hint = ""
    if not any(path.suffix == ".png" for path in written):
        for domain in found.vectors:
            console.print(text_plot(found, domain), soft_wrap=True)
        hint = "No picture was drawn. For one: pip install 'residual-steer[plot]'"
    _saved(written, hint, console)
    console.print("This model is a toy: it shows the mechanics, its figures are not to be quoted.")


def _saved(written: list[Path], hint: str, console: Console) -> None:
    if hint:
        console.print(hint, soft_wrap=True)
    for path in written:
        console.print(f"saved {path}", soft_wrap=True)


def _cpu() -> str:
    return f"{time.process_time():.0f} s CPU"
