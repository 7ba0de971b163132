"""The toy model that ships with the library, its language and judge, and the study `steer demo`."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from steer.model import Model

MODEL_PATH = Path(__file__).parent / "model"
NAME = "steer-demo"


def vectors_path() -> Path:
    """Return the folder of the toy's vectors, in the package or in the checkout.

    Raises:
        FileNotFoundError: The installation is incomplete.
    """
    here = Path(__file__).parent
    for folder in (here / "vectors", here.parents[1] / "vectors" / "toy"):
        if (folder / "medical.safetensors").exists():
            return folder
    raise FileNotFoundError(f"no vectors in {here / 'vectors'}: install the library again")


def load_model(*, dtype: "torch.dtype | str" = "auto", device: str | None = None) -> "Model":
    """Return the toy, with its word-level tokenizer and chat template.

    It shows and tests the mechanics; its figures say nothing about other models.

    Args:
        dtype: Precision; `auto` is that of the folder, float32.
        device: Where to put it; None for the default.
    """
    from steer.model import Model

    model = Model.from_pretrained(MODEL_PATH, dtype=dtype, device=device)
    model.hf_model.config._name_or_path = NAME  # vectors carry the name, not the folder
    return model
