"""Methods side by side in slices of some milliseconds, so that they share whatever else runs.

On a machine with other work the CPU time of the same computation wanders by several per cent,
over seconds as much as over minutes. Run one after the other, two methods meet different times;
in slices of 20 ms, in turn, they meet the same. Each method is a greenlet on a model of its own
that shares the weights (`twin`), and gives way before an MLP once its slice is used up. One thread
runs throughout, and each slice's CPU time goes to its method.
"""

import copy
import gc
import time
from collections.abc import Callable, Sequence

import torch
from greenlet import getcurrent, greenlet
from torch import nn
from transformers import PreTrainedModel

SLICE = 0.02  # CPU seconds


class _Sliced(greenlet):
    """A method that gives way when it has run for a slice."""

    since: float


def twin(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a model that shares its weights, and gives way when run in slices.

    Args:
        model: A Llama.
    """
    copied: PreTrainedModel = copy.deepcopy(model, {id(p): p for p in model.parameters()})
    for block in copied.model.layers:
        block.mlp.register_forward_pre_hook(_give_way)
    return copied


def interleaved(jobs: Sequence[Callable[[], object]], expected: Sequence[float]) -> list[float]:
    """Run jobs in turn, slice by slice, and return the CPU seconds of each.

    The job goes on that has done the least of what it is expected to take, so that all end
    together. In inference mode, which cannot be left half way, a job keeps its turn.

    Args:
        jobs: What to run; models in them must be twins, one for each job.
        expected: About how long each will take.
    """
    sliced = [_Sliced(job) for job in jobs]
    spent = [0.0] * len(jobs)
    gc.collect()
    gc.disable()
    try:
        with torch.no_grad():  # so that it does not matter who leaves its own no_grad first
            while left := [k for k, job in enumerate(sliced) if not job.dead]:
                k = min(left, key=lambda k: spent[k] / expected[k])
                start = sliced[k].since = time.process_time()
                sliced[k].switch()
                spent[k] += time.process_time() - start
    finally:
        gc.enable()
    return spent


def _give_way(module: nn.Module, inputs: object) -> None:
    current = getcurrent()
    if not isinstance(current, _Sliced) or torch.is_inference_mode_enabled():
        return
    if time.process_time() - current.since >= SLICE:
        current.parent.switch()
