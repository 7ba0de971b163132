"""Checks that a model is causal and that padding on its right changes nothing."""

from inspect import Parameter, signature
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from steer.errors import ArchitectureError
from steer.network._architecture.architecture import Architecture
from steer.network._architecture.probe import run

# Rows of one forward run through the same kernels and differ at most by the grouping of experts.
# Their tolerance is a share of the change that another last token causes at its own position. Two
# forwards may differ by kernels, and by scales that a batch shares. Their tolerance is a share of
# the difference between two texts.
_WITHIN = {torch.float64: 1e-6, torch.float32: 1e-3}
_ACROSS = {torch.float64: 1e-6}
_COARSE_WITHIN, _COARSE_ACROSS = 0.05, 0.2


def check_causal(
    architecture: Architecture,
    ids: Int[Tensor, "batch pos"],
    logits: Float[Tensor, "batch pos vocab"],
) -> None:
    """Refuse a model whose logits depend on later tokens or on padding.

    The third row of the ids is the first with another last token, so `logits` show whether a token
    affects earlier ones. A second forward, with the end of the first row masked, shows whether
    padding does.
    """
    model, dtype = architecture.model, next(architecture.embedding.parameters()).dtype
    within = _WITHIN.get(dtype, _COARSE_WITHIN)
    across = _ACROSS.get(dtype, _COARSE_ACROSS)
    at_end = float(torch.linalg.vector_norm((logits[0] - logits[2])[-1].double()))
    if not (back := _distance(logits[0], logits[2])) <= within * at_end:
        raise _acausal(model, back / at_end)
    if not _takes_mask(model):
        return  # padding is a later token like any other
    mask = torch.ones_like(ids)
    mask[0, -1] = 0
    padded = run(model, ids, attention_mask=mask)
    if not _distance(padded[0], padded[2]) <= within * at_end:
        raise _reads_padding(model, "the same row unpadded beside it")
    moved = _distance(padded[0], logits[0])
    if not moved <= across * _distance(logits[0], logits[1]):
        single = run(model, ids[:1])
        if not moved <= 2 * _distance(single[0], logits[0]):  # else it is a scale of the batch
            raise _reads_padding(model, "the same row without a mask")


def _takes_mask(model: nn.Module) -> bool:
    """Return whether a model takes an attention mask."""
    parameters = signature(model.forward).parameters
    return "attention_mask" in parameters or any(
        parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()
    )


def _distance(a: Float[Tensor, "pos vocab"], b: Float[Tensor, "pos vocab"]) -> float:
    """Return the largest distance between the logits of two texts before the last token."""
    return float(torch.linalg.vector_norm((a - b)[:-1].double(), dim=-1).max())


def _acausal(model: nn.Module, moved: float) -> ArchitectureError:
    return ArchitectureError(
        f"{type(model).__name__} is not causal: changing the last token changes the logits before",
        found=f"those of earlier tokens move by {moved:.0%} of what its own move by",
        expected="logits that depend on a token and on those before it",
        do=_advice(getattr(model, "config", None)),
    )


def _advice(config: Any) -> str:
    """Return how to load the model as a causal one, if its configuration has a field for it."""
    for field, wanted in _CAUSAL.items():
        if getattr(config, field, None) is (not wanted):
            return f"load it with {field}={wanted}, if it was trained so"
    return "take a model that was trained to predict each token from those before it alone"


# config field -> its value in a causal model
_CAUSAL = {"is_decoder": True, "causal": True, "use_bidirectional_attention": False}


def _reads_padding(model: nn.Module, against: str) -> ArchitectureError:
    return ArchitectureError(
        f"{type(model).__name__} reads padding: a row padded on its right is not what it is alone",
        found=f"its logits differ from those of {against}",
        expected="logits that do not depend on tokens that the attention mask leaves out",
        do="take another model or attention implementation: rows of one batch would depend on "
        "each other's lengths",
    )
