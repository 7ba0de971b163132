"""The small trained model that ships with the library, its language, its judge and its study."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steer.model import Model

MODEL_PATH = Path(__file__).parent / "model"
NAME = "steer-demo"


def vectors_path() -> Path:
    """Return the folder of the toy model's vectors: in the package, or in the checkout.

    Raises:
        FileNotFoundError: The installation is incomplete.
    """
    here = Path(__file__).parent
    for folder in (here / "vectors", here.parents[1] / "vectors" / "toy"):
        if (folder / "medical.safetensors").exists():
            return folder
    raise FileNotFoundError(f"no vectors in {here / 'vectors'}: install the library again")


def load_model() -> "Model":
    """Return the demo model: a toy for showing and testing the mechanics, never for quoting.

    Returns:
        The model, with its own word-level tokenizer and chat template.
    """
    from transformers import AutoTokenizer, LlamaForCausalLM

    from steer.model import Model

    hf_model: Any = LlamaForCausalLM.from_pretrained(MODEL_PATH).eval()
    hf_model.config._name_or_path = NAME  # vectors carry the model's name, not where it lies
    return Model(hf_model, AutoTokenizer.from_pretrained(MODEL_PATH))
