"""Finding and loading a model with its tokenizer."""

from steer.model._loading.load import check_loaded, load_model, load_tokenizer, loading
from steer.model._loading.options import PRECISIONS, need, shared_options
from steer.model._loading.place import Place, located

__all__ = [
    "PRECISIONS",
    "Place",
    "check_loaded",
    "load_model",
    "load_tokenizer",
    "loading",
    "located",
    "need",
    "shared_options",
]
