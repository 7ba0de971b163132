"""Attention of branches: each to its own rows and to the keys and values of still rows.

The model attends through a function of ours (`steer.engine.attention`), as for packed recording.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from steer.engine._attention import UnpackableError, attention_replaced, causal_mask, check_plain
from steer.engine._branches.layout import Branch
from steer.errors import BusyModelError
from steer.network import Architecture

ATTENTION = "steer_branches"
Memory = dict[nn.Module, tuple[Tensor, Tensor]]


@dataclass(eq=False, slots=True)
class Attending:
    """The forward under way."""

    branches: Sequence[Branch]  # its rows
    # Keys and values of the still rows, by attention module; read, or kept if `keep`
    memory: Memory
    keep: bool = False  # whether the keys and values of this forward are kept in `memory`
    calls: int = 0  # attention calls seen so far
    _masks: dict[tuple[int, int | None, torch.device], Bool[Tensor, "pos pos"] | None] = field(
        default_factory=dict
    )

    def mask(
        self, index: int, window: int | None, device: torch.device
    ) -> Bool[Tensor, "pos pos"] | None:
        """Return who attends to whom in a branch; None where it is plainly causal or total."""
        key = (index, window, device)
        if key not in self._masks:
            branch = self.branches[index]
            self._masks[key] = causal_mask(branch.depth, branch.stop - branch.start, window, device)
        return self._masks[key]


_ATTENDING: ContextVar[Attending | None] = ContextVar("steer_branches", default=None)


@contextmanager
def attending(architecture: Architecture, task: Attending) -> Iterator[Attending]:
    """Let the model's attention follow the branches of a forward, and put everything back."""
    with attention_replaced(architecture, ATTENTION, _attention, _busy):
        token = _ATTENDING.set(task)
        try:
            yield task
        finally:
            _ATTENDING.reset(token)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend branch by branch, as transformers calls attention functions."""
    task = _ATTENDING.get()
    if task is None or query.shape[2] != task.branches[-1].stop:
        raise _busy()
    check_plain(module, attention_mask, dropout, others)
    task.calls += 1
    if task.keep:
        task.memory[module] = key, value
    still = None if task.keep else task.memory.get(module)
    out = value.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])
    for index, branch in enumerate(task.branches):
        if branch.still and still is None:
            raise UnpackableError("one of its attention modules runs for some rows only")
        mask = task.mask(index, sliding_window, query.device)
        own = slice(branch.start, branch.stop)
        attended = scaled_dot_product_attention(
            query[:, :, own],
            _seen(key, None if still is None else still[0], branch, query.shape[1]),
            _seen(value, None if still is None else still[1], branch, query.shape[1]),
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
        )
        out[:, own] = attended.transpose(1, 2)
    return out, None


def _seen(x: Tensor, still: Tensor | None, branch: Branch, heads: int) -> Tensor:
    """Return the keys, or values, of all tokens up to the end of a branch, for every head."""
    parts = [x[:, :, start:stop] for start, stop in (*branch.before, (branch.start, branch.stop))]
    if still is not None:
        kept = [still[:, :, start:stop] for start, stop in branch.still]
        parts = [part.expand(x.shape[0], -1, -1, -1) for part in kept] + parts
    seen = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
    return seen if seen.shape[1] == heads else seen.repeat_interleave(heads // seen.shape[1], 1)


def _busy() -> BusyModelError:
    return BusyModelError(
        "this model is scoring settings",
        found="a second call during a forward of many settings, or from another thread",
        expected="one call at a time",
        do="wait until it has returned, or use one copy of the model per thread",
    )
