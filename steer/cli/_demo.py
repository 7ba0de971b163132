"""`steer demo`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from steer.cli._common import MOST_SEED, TOY, load_model, plain_console, real_model, say
from steer.errors import FileError, SteerError

if TYPE_CHECKING:
    from steer.demo.study import Subject
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
    seed: Annotated[
        int, typer.Option(help="Seed of splits and random directions.", min=0, max=MOST_SEED)
    ] = 0,
) -> None:
    """Record, choose, steer and judge: on SmolLM2-135M-Instruct, another model, or a toy."""
    from steer.demo.report import save, show
    from steer.demo.study import study
    from steer.demo.toy import toy_subject
    from steer.store import folder_of

    if toy and model is not None:
        raise typer.BadParameter("--toy is a model already", param_hint="--model")
    folder_of(out, FileError)
    console = plain_console()
    start = time.perf_counter()
    with _one_thread():
        lm = None if toy else _instruct(model, console)
        small = lm is None
        lm = lm or load_model(TOY, "auto", None)
        if small:
            subject = toy_subject(lm, pairs or 100, questions or 20, seed)
        else:
            subject = _instruct_subject(lm, pairs, questions, seed)

        def step(name: str) -> None:
            say(f"{_cpu():>10}  {name}")

        found = study(lm, subject, seed=seed, progress=not small, say=step)
    show(found, console)
    written, hint = save(found, out)
    for line in filter(None, (hint, *(f"saved {path}" for path in written))):
        say(line)
    wall = time.perf_counter() - start
    say(f"{lm.info.model_id}: {_cpu()} in all, with one thread; {wall:.0f} s of wall time")
    if small:
        say("This model is a toy: it shows the mechanics, do not quote its figures.")


def _instruct(name: str | None, console: Console) -> "Model | None":
    """Return the model named, or SmolLM2; None, and a line that says so, where it cannot be had."""
    from steer.demo.smollm2 import NAME

    with console.status(f"load {name or NAME}"):
        found = real_model() if name is None else load_model(name, "auto", None)
    if not isinstance(found, SteerError):
        return found
    reason = f"{found.found}; {found.do}"
    say(f"The toy model runs, since {NAME} cannot be had: {reason}")
    return None


def _instruct_subject(
    lm: "Model", pairs: int | None, questions: int | None, seed: int
) -> "Subject":
    """Return what is studied on an instruct model, of the sizes asked for."""
    from steer.demo.real.behaviours import ASKED, TRAINING
    from steer.demo.real.subject import instruct_subject

    for option, given, most in (("pairs", pairs, TRAINING), ("questions", questions, len(ASKED))):
        if given is not None and given > most:
            raise typer.BadParameter(f"there are {most}", param_hint=f"--{option}")
    sizes = {"n_pairs": pairs, "n_questions": questions, "n_gated": questions}
    given_sizes = {name: n for name, n in sizes.items() if n is not None}
    return instruct_subject(lm, **given_sizes, seed=seed, progress=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread: in a model so small more only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _cpu() -> str:
    return f"{time.process_time():.0f} s CPU"
