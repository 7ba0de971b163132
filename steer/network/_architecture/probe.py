"""Runs of a model on a few tokens that leave the model and the random state unchanged."""

import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain, islice
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from steer.network._architecture.refused import refused

ROWS, TOKENS = 3, 4


def probe_ids(config: Any, embedding: nn.Module, vocab: int) -> Int[Tensor, "batch pos"]:
    """Return three rows of ordinary ids: two that share none, and the first with another end."""
    size = min(vocab, getattr(embedding, "num_embeddings", vocab))
    special = _special_ids(config)
    count, start = 2 * TOKENS, size // 3
    usual = (i for i in chain(range(start, size), range(start)) if i not in special)
    ids = ((list(islice(usual, count)) or [0]) * count)[:count]
    ids += [*ids[: TOKENS - 1], ids[-1]]
    device = next(embedding.parameters()).device
    if device.type == "meta":  # offloaded: the model's own hooks move the ids
        device = torch.device("cpu")
    return torch.tensor(ids, device=device).view(ROWS, TOKENS)


def run(model: nn.Module, ids: Tensor, **inputs: Tensor) -> Float[Tensor, "batch pos vocab"]:
    """Return the model's logits."""
    try:
        with uncompiled():
            out = model(input_ids=ids, **inputs, use_cache=False)
        logits = out.logits if hasattr(out, "logits") else out[0]
        if not isinstance(logits, Tensor):
            raise TypeError(f"logits are a {type(logits).__name__}")
    except Exception as error:
        given = ", ".join(["input_ids=ids", *(f"{name}=…" for name in inputs), "use_cache=False"])
        raise refused(
            model,
            f"{type(model).__name__} cannot be run on {ROWS} × {TOKENS} token ids",
            found=f"{type(error).__name__}: {error}",
            expected=f"model({given}) gives logits",
            do="make this call work: every text is run by it",
        ) from error
    return logits


def _special_ids(config: Any) -> set[int]:
    """Return every special token id in a configuration and the configurations inside it."""
    found: set[int] = set()
    stack: list[Any] = [config.to_dict()]
    while stack:
        for name, value in stack.pop().items():
            if isinstance(value, dict):
                stack.append(value)
            elif str(name).endswith(("_token_id", "_token_index")):
                values = value if isinstance(value, list) else [value]
                found |= {i for i in values if isinstance(i, int)}
    return found


def original(model: nn.Module) -> nn.Module:
    """Return the module inside a compiled one, and any other module as it is."""
    inner = getattr(model, "_orig_mod", None)
    return original(inner) if isinstance(inner, nn.Module) else model


class _Stance:
    """The compiler's stance, which is one for all threads: the first sets it, the last restores it.

    Each would otherwise restore what it found, and of two that overlap the later would find, and
    leave, a compiler that compiles nothing.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._eager: AbstractContextManager[object] = nullcontext()

    def enter(self) -> None:
        """Compile nothing from here on."""
        with self._lock:
            if not self._inside:
                self._eager = torch.compiler.set_stance("force_eager")
            self._inside += 1

    def leave(self) -> None:
        """Restore the stance once nobody is inside."""
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._eager.__exit__(None, None, None)


_STANCE = _Stance()


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run compiled modules uncompiled, since compiled code does not call our hooks."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and the import takes seconds
        yield
        return
    _STANCE.enter()
    try:
        yield
    finally:
        _STANCE.leave()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set every module to evaluation mode, and restore the flags of all modules one by one."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def same_random_state(model: nn.Module) -> Iterator[None]:
    """Restore the global random state of the CPU and of the model's GPUs."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices=devices):
        yield
