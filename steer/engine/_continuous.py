"""Continuous batching: requests packed in one row, and what is kept between them.

Its manager keeps blocks of the cache, which requests with the same beginning share, and graphs.
Both belong to the steering under which they were made.
"""

import threading
import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from steer.errors import CapabilityError

_KEPT = "_cached_continuous_batching_manager"  # the model's attribute for a persistent manager


def refuse_continuous_batching(*_: object, **__: object) -> None:
    """Refuse to mix prompts in one row."""
    raise CapabilityError(
        "continuous batching mixes prompts in one row",
        found="generate_batch, or cache_implementation='paged'",
        expected="one row per prompt",
        do="use generate() with another cache, or scope 'all' with one setting for all prompts",
    )


def refuse_packed(given: Mapping[str, object]) -> None:
    """Refuse the forward of a manager that was made before steering began."""
    if given.get("cu_seq_lens_q") is not None:
        refuse_continuous_batching()


def refuse_running(model: nn.Module, *, beginning: bool) -> None:
    """Refuse to change the steering of a model while continuous batching runs it.

    Other coefficients, which stay in the same tensors, are refused only where requests share
    blocks. A manager that is kept, but does not run, is discarded.
    """
    for manager in _running(model):
        if beginning or manager.continuous_batching_config.allow_block_sharing:
            raise CapabilityError(
                "continuous batching is running on this model",
                found="blocks of its cache, or graphs, made under the present steering",
                expected="no running manager, or other coefficients where requests share no blocks",
                do="stop the manager first, or make it with ContinuousBatchingConfig("
                "allow_block_sharing=False) and change coefficients with update()",
            )
    _discard(model)


def stop_continuous_batching(model: nn.Module) -> None:
    """Stop the managers that run a model whose steering ends."""
    for manager in _running(model):
        warnings.warn(
            "continuous batching was running when steering ended: it is stopped, and its "
            "unfinished requests fail. Stop the manager inside the context.",
            stacklevel=6,
        )
        manager.stop(hard_stop=True)
    _discard(model)


def _running(model: nn.Module) -> list[Any]:
    """Return the managers whose threads run a model; they are known to nobody else."""
    owners = [getattr(getattr(t, "_target", None), "__self__", None) for t in threading.enumerate()]
    return [
        owner
        for owner in owners
        if getattr(owner, "model", None) is model and hasattr(owner, "continuous_batching_config")
    ]


def _discard(model: Any) -> None:
    if hasattr(model, _KEPT):
        model.destroy_cached_continuous_batching_manager()
