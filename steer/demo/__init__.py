"""The toy model that ships with the library, its language and judge, and the study `steer demo`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def load_model() -> "Model":
    """Return the toy, with its word-level tokenizer and chat template.

    It shows and tests the mechanics; its figures say nothing about other models.
    """
    from transformers import AutoTokenizer, LlamaForCausalLM

    from steer.model import Model

    hf_model: Any = LlamaForCausalLM.from_pretrained(MODEL_PATH).eval()
    hf_model.config._name_or_path = NAME  # vectors carry the name, not the folder
    return Model(hf_model, AutoTokenizer.from_pretrained(MODEL_PATH))
