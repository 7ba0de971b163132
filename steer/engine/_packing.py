"""Whether packed forwards suit a model: tried on the model itself, never guessed from its name."""

import random
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from steer.engine._attention import UnpackableError
from steer.engine._layout import Place
from steer.engine._reading import Means, dtype_of, read_packed, read_padded
from steer.network import Architecture
from steer.network._positions import config_value, position_limit, scaled_by_length

_T = TypeVar("_T")
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
LENGTH = 32  # tokens of the shortest trial; longer ones are multiples of it
_FAILURES = (UnpackableError, RuntimeError, TypeError, ValueError, LookupError, AttributeError)


@dataclass(frozen=True, slots=True)
class Packing:
    """Whether our attention suits a model, so that its sequences can be packed.

    Args:
        reason: Why not; empty if it does.
        length: Tokens of the longest sequence tried.
        error: Largest ‖packed − alone‖ / ‖alone‖ over layers and tokens; None if the packed
            forward did not run.
    """

    reason: str
    length: int
    error: float | None = None

    @property
    def packed(self) -> bool:
        """Whether the sequences can be packed."""
        return not self.reason

    def __str__(self) -> str:
        return f"padded: {self.reason}" if self.reason else "packed"


_KNOWN: "weakref.WeakKeyDictionary[nn.Module, dict[object, Any]]" = weakref.WeakKeyDictionary()


def known_of(architecture: Architecture) -> dict[Any, Any]:
    """Return the results of trials of a model in its present precision, device and mode."""
    parameter = next(architecture.embedding.parameters())
    attention = config_value(architecture, "_attn_implementation")
    key = (parameter.dtype, parameter.device, attention, architecture.model.training)
    known: dict[Any, Any] = _KNOWN.setdefault(architecture.model, {}).setdefault(key, {})
    return known


def packing_of(architecture: Architecture, longest: int = LENGTH) -> Packing:
    """Return whether packed forwards of a model equal plain ones, one sequence at a time.

    The first call runs a few random sequences both ways and compares the outputs of all blocks,
    relative to their norm, with a tolerance of 1e-9 in float64, 1e-4 in float32, 2e-2 in
    float16 and 1e-1 in bfloat16.
    """
    return tried(_tried, architecture, longest)


def tried(
    trial: Callable[[Architecture, int], Packing], architecture: Architecture, longest: int
) -> Packing:
    """Return the result of a trial of our attention, kept until a longer sequence is asked for.

    Attention windows and scaled positions show at their own length only. The length is a multiple
    of `LENGTH`, within the positions of the model.
    """
    length = LENGTH * max(1, -(-longest // LENGTH))
    length = min(length, position_limit(architecture) or length)
    known = known_of(architecture)
    found: Packing | None = known.get(trial)
    if found is None or (found.packed and found.length < length):
        if not getattr(architecture.body, "_supports_attention_backend", False):
            reason = "its attention does not go through transformers' attention interface"
            found = Packing(reason, length)
        elif scaled_by_length(architecture, length):
            found = Packing("its positions are scaled by the longest sequence of a batch", length)
        else:
            found = trial(architecture, length)
        known[trial] = found
    return found


def attempt(run: Callable[[], _T]) -> _T | str:
    """Return the result of a trial, or in one line why it fails.

    Only the text of an `UnpackableError` is for readers: other errors come from inside the model.
    """
    try:
        return run()
    except torch.OutOfMemoryError:
        raise
    except UnpackableError as error:
        return str(error)
    except _FAILURES:
        return "its forward fails where attention is ours and no mask is made"


def tolerance_of(architecture: Architecture) -> float:
    """Return the relative tolerance of a trial in the precision of a model."""
    return TOLERANCE.get(dtype_of(architecture), 1e-4)


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest value expected."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def _tried(architecture: Architecture, length: int) -> Packing:
    sequences = _trial(architecture.vocab, length)
    places = [
        Place(index, (token,))
        for index, sequence in enumerate(sequences)
        for token in range(max(0, len(sequence) - 3), len(sequence))
    ]
    layers = range(architecture.n_layers)
    alone = read_padded(architecture, sequences, places, layers, max_tokens=1)
    together = attempt(lambda: read_packed(architecture, sequences, places, layers))
    if isinstance(together, str):
        return Packing(together, length)
    off = _relative(together, alone)
    if not off <= tolerance_of(architecture):
        reason = f"packed forwards differ from plain ones by {off:.1e} at {length} tokens"
        return Packing(reason, length, off)
    return Packing("", length, off)


def _trial(vocab: int, length: int) -> list[list[int]]:
    """Return sequences that share everything but the end, one half, and nothing."""
    draw = random.Random(length)
    sequence = [draw.randrange(vocab) for _ in range(length)]
    end, middle, other = ([draw.randrange(vocab) for _ in range(n)] for n in (5, 7, 11))
    shared = sequence[: length // 2]
    return [sequence, sequence[:-5] + end, shared + middle, other[:length]]


def _relative(found: Means, expected: Means) -> float:
    difference = torch.linalg.vector_norm(found.residual - expected.residual, dim=-1)
    length = torch.linalg.vector_norm(expected.residual, dim=-1)
    return float((difference / length.clamp_min(1e-30)).max())
