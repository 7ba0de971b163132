"""The small trained model that ships with the library, its language, its judge and its study."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steer.model import Model

MODEL_PATH = Path(__file__).parent / "model"


def load_model() -> "Model":
    """Return the demo model: a toy for showing and testing the mechanics, never for quoting.

    Returns:
        The model, with its own word-level tokenizer and chat template.
    """
    from steer.model import Model

    return Model.from_pretrained(MODEL_PATH)
