"""Finding and loading a model with its tokenizer."""

from steer.loading.load import check_loaded, load_model, load_tokenizer, loading
from steer.loading.options import PRECISIONS, need, shared_options
from steer.loading.place import Place, located

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
