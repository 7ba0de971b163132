"""Models that are refused, and what is said of them."""

from typing import Any

import pytest
from torch import nn
from transformers import PreTrainedModel

from steer.errors import ArchitectureError
from steer.network import find_architecture


def refused(model: nn.Module, match: str, **names: Any) -> ArchitectureError:
    """The error for a model, or for parts of it that were named by hand."""
    with pytest.raises(ArchitectureError, match=match) as caught:
        find_architecture(model, **names)
    return caught.value


def broken(model: PreTrainedModel) -> PreTrainedModel:
    """The same model, whose forward fails after the blocks."""

    def fail(*_: Any) -> None:
        raise RuntimeError("out of order")

    model.model.norm.register_forward_pre_hook(fail)
    return model
