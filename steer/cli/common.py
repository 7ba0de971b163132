"""What several commands share: how a model is named and loaded."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from steer.errors import TextError

if TYPE_CHECKING:
    from steer.model import Model

ModelName = Annotated[
    str, typer.Argument(help="Hugging Face id or directory, or 'demo' for the model that ships.")
]
Dtype = Annotated[str, typer.Option(help="Precision to load the model in: auto, float32, …")]
Device = Annotated[str | None, typer.Option(help="Where to load it: cpu, cuda, auto, …")]


def load_model(name: str, dtype: str, device: str | None) -> "Model":
    """Load a model by what the command line calls it.

    Args:
        name: Hub id, directory, or `demo`.
        dtype: Precision, as `from_pretrained` takes it.
        device: Where to put it, as `device_map`; None for the default.

    Returns:
        The model.

    Raises:
        OSError: There is no such model.
        TextError: It has no tokenizer that can be read.
    """
    if name == "demo":
        from steer.demo import load_model as load_demo

        return load_demo()
    from transformers import AutoTokenizer

    from steer.model import Model

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except ValueError as error:
        raise TextError(
            "this model has no tokenizer that can be read",
            found=f"{name}: {error}",
            expected="a tokenizer beside the weights (tokenizer.json, tokenizer_config.json)",
            do="save it there: tokenizer.save_pretrained(directory)",
        ) from error
    options: dict[str, Any] = {"dtype": dtype}
    if device is not None:
        options["device_map"] = device
    return Model.from_pretrained(name, tokenizer=tokenizer, **options)
