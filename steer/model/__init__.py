"""The model that is steered: text in and out, activations, and the handle of a steering."""

from steer.model._batch import exchange_batch, prompt_batch
from steer.model._model import Model, check_model
from steer.model._steered import Steered
from steer.model._streaming import stream

__all__ = [
    "Model",
    "Steered",
    "check_model",
    "exchange_batch",
    "prompt_batch",
    "stream",
]
