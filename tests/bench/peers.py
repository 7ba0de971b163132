"""The peers: `steering-vectors` 0.12.2 and `repeng` 0.4.0, as their users call them.

Both are installed with `--no-deps`. `steering-vectors` declares transformers<5, `repeng` numpy<2,
and both work with newer ones, `repeng` after one shim: NumPy 2 has no `np.float_`, which `repeng`
names in annotations; here it is put back as `np.float64` before the import.
"""

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

if not hasattr(np, "float_"):
    np.float_ = np.float64

from repeng import ControlModel, ControlVector, DatasetEntry
from steering_vectors import SteeringVector, train_steering_vector

Texts = Sequence[str]


@dataclass(frozen=True, slots=True)
class Recorder:
    """One way in which a peer makes a vector from pairs of texts.

    Args:
        name: Peer and setting.
        run: From model, tokenizer and texts (chosen, rejected, chosen, …) to a vector.
    """

    name: str
    run: Callable[[Any, Any, Texts], object]


def recorders() -> list[Recorder]:
    """Return the settings of the peers: all layers, read at the last token."""
    return [
        *(Recorder(f"steering-vectors, batch {n}", _trained(n)) for n in (1, 4, 16)),
        *(
            Recorder(f"repeng, {method}, batch {n}", _read(method, n))
            for method in ("pca_center", "pca_diff")
            for n in (4, 32)
        ),
    ]


def _trained(batch_size: int) -> Callable[[Any, Any, Texts], object]:
    def run(model: Any, tokenizer: Any, texts: Texts) -> object:
        pairs = list(zip(texts[::2], texts[1::2], strict=True))
        return train_steering_vector(model, tokenizer, pairs, batch_size=batch_size)

    return run


def _read(method: str, batch_size: int) -> Callable[[Any, Any, Texts], object]:
    def run(model: Any, tokenizer: Any, texts: Texts) -> object:
        entries = [DatasetEntry(a, b) for a, b in zip(texts[::2], texts[1::2], strict=True)]
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            return ControlVector.train(
                model, tokenizer, entries, method=method, batch_size=batch_size
            )

    return run


@contextlib.contextmanager
def steered_by_steering_vectors(model: Any, directions: Mapping[int, Tensor]) -> Iterator[None]:
    """Steer with `steering-vectors` while the context lasts."""
    with SteeringVector(dict(directions)).apply(model, multiplier=1.0):
        yield


@contextlib.contextmanager
def steered_by_repeng(model: Any, directions: Mapping[int, Tensor]) -> Iterator[None]:
    """Steer with `repeng` while the context lasts; the model is wrapped and unwrapped."""
    arrays = {layer: v.numpy() for layer, v in directions.items()}
    with torch.no_grad():
        wrapped = ControlModel(model, list(directions))
        wrapped.set_control(ControlVector(model.config.model_type, arrays), 1.0)
    try:
        yield
    finally:
        wrapped.unwrap()
