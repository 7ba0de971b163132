"""Refusing backward passes through a model that is steered differently than in the forward.

A backward pass needs the weights, and where activations are checkpointed it runs parts of the
forward again. Both must be as they were in the forward, or the gradient is silently wrong.
"""

import sys
import warnings
from collections.abc import Callable, Sequence
from types import FrameType

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from steer.algebra import Composition
from steer.engine._patches import Uncopied, Undo
from steer.engine._runtime import tensors_in
from steer.engine._steering import Steering
from steer.errors import SteeringError

_CHECKPOINT = torch.utils.checkpoint.__file__
_WRAPPERS = ("CheckpointWrapper",)  # of torch.distributed


class Backward:
    """Watches where forwards of one steered model begin and end."""

    def __init__(self, stack: Callable[[], Sequence[Steering]]) -> None:
        self._stack = stack
        self._graded = False  # whether the forward under way may have a backward pass
        self._again = False  # whether that would run what we hooked in again
        self._inner = False  # whether it would run what is inside blocks again

    def hook(self, body: nn.Module, model: nn.Module, undo: Undo) -> None:
        """Watch a model."""
        undo(body.register_forward_pre_hook(Uncopied(self._begin), prepend=True).remove)
        undo(body.register_forward_hook(Uncopied(self._end_of_body)).remove)
        if model is not body:
            undo(model.register_forward_hook(Uncopied(self._end)).remove)

    def note_checkpoint(self) -> None:
        """Note whether the running code will run again in a backward pass."""
        if not torch.compiler.is_compiling() and self._graded and not self._again:
            self._again = _inside_checkpoint()

    def _begin(self, *_: object) -> None:
        if torch.compiler.is_compiling():
            return
        for steering in self._stack():
            steering.merging.check()
        self._graded, self._again, self._inner = torch.is_grad_enabled(), False, False
        if not self._graded and _inside_checkpoint():
            warnings.warn(
                "a steered model runs inside torch.utils.checkpoint(use_reentrant=True): call "
                "backward() before the context is left or updated, or the gradient is that of "
                "another model; with use_reentrant=False a late backward() is refused",
                stacklevel=2,
            )

    def _end_of_body(self, body: nn.Module, _: object, output: object) -> None:
        if not torch.compiler.is_compiling() and torch.is_grad_enabled():
            self.note_checkpoint()
            self._inner = _checkpoints(body)
            self._end(body, (), output)

    def _end(self, module: nn.Module, _: object, output: object) -> None:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return
        again, inner = self._again, self._inner

        def needed() -> list[tuple[Steering, Composition]]:
            return [
                (steering, steering.composition)
                for steering in self._stack()
                if again or steering.merging.names or (inner and steering.displaced)
            ]

        if was := needed():
            _watch(output, lambda: needed() == was)


def _inside_checkpoint() -> bool:
    """Return whether this runs in a region that torch recomputes in the backward pass."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != _CHECKPOINT:
        frame = frame.f_back
    return frame is not None


def _checkpoints(module: nn.Module) -> bool:
    """Return whether a module recomputes some of its activations."""
    return any(
        (getattr(m, "gradient_checkpointing", False) and m.training)
        or type(m).__name__ in _WRAPPERS
        for m in module.modules()
    )


def _watch(output: object, steered_alike: Callable[[], bool]) -> None:
    """Refuse a backward pass that begins while the model is steered differently."""

    def check(gradient: Tensor) -> None:
        if not steered_alike():
            raise SteeringError(
                "this backward pass would run through a model that is steered differently",
                found="a context that was entered, left or updated since the forward",
                expected="the same steering: checkpointed activations are computed again, and "
                "merged weights are read again",
                do="call backward() before the context is left or updated",
            )

    for tensor in {id(t): t for t in tensors_in(output) if t.requires_grad}.values():
        tensor.register_hook(check)
