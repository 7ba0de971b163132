"""What several commands share: how a model is named and loaded."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    import torch

    from steer.model import Model

ModelName = Annotated[
    str,
    typer.Argument(help="Hub id, folder or GGUF file, or 'demo' for the model that ships."),
]
Dtype = Annotated[str, typer.Option(help="Precision to load the model in: auto, float32, …")]
Device = Annotated[str | None, typer.Option(help="Where to load it: cpu, cuda, auto, …")]


def plain_console(*, stderr: bool = False) -> Console:
    """Return a console that prints texts as they are: no markup, no emoji codes, no highlighting.

    Args:
        stderr: Whether it writes to the standard error.
    """
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def load_model(name: str, dtype: str, device: str | None) -> "Model":
    """Load a model by what the command line calls it.

    Args:
        name: Hub id, folder, GGUF file, or `demo`.
        dtype: Precision, as `from_pretrained` takes it.
        device: Where to put it; None for the default.

    Returns:
        The model.

    Raises:
        CapabilityError: There is no such device.
        CheckpointError: There is no such model, or it cannot be loaded.
        TextError: It has no tokenizer that can be read.
    """
    from steer.demo import MODEL_PATH, NAME
    from steer.model import Model

    source = str(MODEL_PATH) if name == "demo" else name
    wanted = "auto" if dtype == "auto" else precision(dtype)
    model = Model.from_pretrained(source, dtype=wanted, device=device)
    if name == "demo":
        model.hf_model.config._name_or_path = NAME  # as steer.demo.load_model calls it
    return model


def precision(name: str) -> "torch.dtype":
    """Return a floating-point precision by its name.

    Args:
        name: `float16`, `bfloat16`, `float32` or `float64`.

    Raises:
        BadParameter: There is no such precision.
    """
    from steer.loading import PRECISIONS

    if name not in PRECISIONS:
        raise typer.BadParameter(f"expected one of {', '.join(PRECISIONS)}", param_hint="--dtype")
    return PRECISIONS[name]
