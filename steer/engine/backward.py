"""Backward passes of a steered model that would run through a model steered otherwise.

A backward pass needs the weights, and where activations are checkpointed it runs parts of the
forward again. Both must be as they were in the forward, or the gradient is wrong in silence.
"""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from steer.errors import SteeringError

_CHECKPOINT = torch.utils.checkpoint.__file__
_WRAPPERS = ("CheckpointWrapper",)  # of torch.distributed


def inside_checkpoint() -> bool:
    """Return whether this runs in a region whose activations torch computes again later."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename == _CHECKPOINT:
            return True
    return False


def checkpoints(module: nn.Module) -> bool:
    """Return whether a module is set to compute some of its activations again.

    Args:
        module: The module.
    """
    return any(
        (getattr(m, "gradient_checkpointing", False) and m.training)
        or type(m).__name__ in _WRAPPERS
        for m in module.modules()
    )


def watch_backward(output: object, steered_alike: Callable[[], bool]) -> None:
    """Have a backward pass refused that begins while the model is steered otherwise.

    Args:
        output: What the model's body gave.
        steered_alike: Whether the model is steered as it was when that was computed.
    """

    def check(gradient: Tensor) -> None:
        if not steered_alike():
            raise SteeringError(
                "this backward pass would run through a model that is steered otherwise",
                found="a context that was entered, left or updated since the forward",
                expected="the same steering: checkpointed activations are computed again, and "
                "merged weights are read again",
                do="call backward() before the context is left or updated",
            )

    for tensor in {id(t): t for t in _tensors(output) if t.requires_grad}.values():
        tensor.register_hook(check)


def warn_of_reentrant() -> None:
    """Warn of a reentrant checkpoint around the whole model, in which no backward can be seen."""
    warnings.warn(
        "a steered model runs inside torch.utils.checkpoint(use_reentrant=True): call backward() "
        "before the context is left or updated, or the gradient is that of another model; with "
        "use_reentrant=False a late backward() is refused",
        stacklevel=2,
    )


def _tensors(output: object) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):  # what transformers returns
        yield from _tensors(tuple(output.values()))
    elif isinstance(output, tuple | list):
        for item in output:
            yield from _tensors(item)
