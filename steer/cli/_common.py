"""What several commands share: options, the model, progress and time."""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from steer.errors import ArgumentError, CheckpointError, MissingExtraError, SteerError
from steer.show._json import json_line
from steer.show._markup import terminal_text

if TYPE_CHECKING:
    from steer.model import Model

REAL, TOY = "smollm2", "demo"  # names of the models of `steer.demo`
MOST_SEED = 2**32 - 1  # the largest that torch, NumPy and Python all take
ModelName = Annotated[
    str,
    typer.Argument(
        help="Hub id, folder or GGUF file; 'smollm2' for a small instruct model, 'demo' for the "
        "toy that ships."
    ),
]
Precision = Literal["float16", "bfloat16", "float32", "float64"]
Dtype = Annotated[
    Literal["auto", "float16", "bfloat16", "float32", "float64"],
    typer.Option(help="Precision to load the model in."),
]
Device = Annotated[str | None, typer.Option(help="Where to load it: cpu, cuda, auto, …")]
Progress = Annotated[
    bool,
    typer.Option(
        "--progress/--no-progress", " /--quiet", help="Show bars and the time taken, on stderr."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
Vectors = Annotated[
    list[str] | None,
    typer.Option("--vector", "-v", help="FILE:COEF; may be given several times."),
]
Gate = Annotated[bool, typer.Option(help="Use the domain gate stored in the files.")]
Strict = Annotated[bool, typer.Option(help="Refuse vectors of another model family.")]
Length = Annotated[int, typer.Option(help="Most tokens of an answer.", min=1)]


def plain_console(*, stderr: bool = False) -> Console:
    """Return a console that prints texts as they are: no markup, emoji codes or highlighting."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def say(value: object) -> None:
    """Print a card, a table, or a text without control characters to standard output."""
    text = isinstance(value, str)
    plain_console().print(terminal_text(str(value)) if text else value, soft_wrap=text)


def tell(text: str, style: str = "") -> None:
    """Print a text to standard error as it is, without control characters."""
    plain_console(stderr=True).print(terminal_text(text), style=style, soft_wrap=True)


@contextmanager
def working(progress: bool) -> Iterator[None]:
    """Print the seconds that a command took to standard error; hide bars that nobody watches."""
    from transformers.utils import logging

    start = time.perf_counter()
    watched = progress and sys.stderr.isatty()
    hide = not watched and logging.is_progress_bar_enabled()
    if hide:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if hide:
            logging.enable_progress_bar()
    if progress:
        tell(f"done in {time.perf_counter() - start:.1f} s")


def print_json(value: Mapping[str, object]) -> None:
    """Print an object as one line of JSON; numbers that are not finite become null."""
    sys.stdout.write(json_line(value))


def place_of(model: str) -> str | Path:
    """Return what the library loads for a model's name on the command line.

    Raises:
        CheckpointError: The real model cannot be had.
    """
    from steer.demo import MODEL_PATH, smollm2

    if model == REAL:
        return smollm2.model_folder()
    return MODEL_PATH if model == TOY else model


def load_model(name: str, dtype: str, device: str | None) -> "Model":
    """Return the model that the command line calls by an id, a folder, a file, or a special name.

    Raises:
        CapabilityError: There is no such device.
        CheckpointError: There is no such model, or it cannot be loaded.
        TextError: It has no tokenizer that can be read.
    """
    from steer import demo
    from steer.demo import smollm2
    from steer.model import Model
    from steer.model._loading.options import PRECISIONS

    wanted = PRECISIONS.get(dtype, dtype)
    if name == REAL:
        return smollm2.load(dtype=wanted, device=device)
    if name == TOY:
        return demo.load_model(dtype=wanted, device=device)
    if get_close_matches(name, (REAL, TOY), cutoff=0.8) and not Path(name).exists():
        raise CheckpointError(
            f"there is no model {name}",
            found=f"a name like {REAL} or {TOY}, and no folder or file of that name",
            expected=f"{REAL}, {TOY}, a folder, a GGUF file, or a Hub id owner/name",
            do=f"write {get_close_matches(name, (REAL, TOY), n=1, cutoff=0.8)[0]}",
        )
    return Model.from_pretrained(name, dtype=wanted, device=device)


def check_apart(out: Path, *read: Path) -> None:
    """Refuse to write a result over a file that it is made from."""
    for file in read:
        if os.path.exists(file) and os.path.exists(out) and os.path.samefile(out, file):
            raise ArgumentError(
                "the file to write is one that is read",
                found=str(out),
                expected="another file, or none yet",
                do="name another one",
            )


def check_layers(layers: Sequence[int] | None, model: str) -> None:
    """Refuse layers that a model does not have, as far as its configuration alone can say."""
    from transformers import AutoConfig

    try:
        count = AutoConfig.from_pretrained(place_of(model)).get_text_config().num_hidden_layers
    except Exception:  # noqa: BLE001  # configurations raise classes of their own
        return  # loading it says why, and recording checks layers again
    if layers and max(layers) >= count:
        raise typer.BadParameter(
            f"{model} has layers 0 to {count - 1}, and {max(layers)} was named",
            param_hint="--layers",
        )


def real_model(dtype: str = "auto", device: str | None = None) -> "Model | SteerError":
    """Return the real model, or the error where it cannot be had; a model that was set raises."""
    from steer.demo.smollm2 import OVERRIDE

    try:
        return load_model(REAL, dtype, device)
    except (CheckpointError, MissingExtraError) as error:
        if os.environ.get(OVERRIDE):
            raise
        return error
