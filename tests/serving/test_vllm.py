"""Without vLLM, its class says what is missing."""

from importlib.util import find_spec

import pytest
import torch

from steer import Vector
from steer.errors import MissingExtraError
from steer.serving import VLLM


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_a_missing_vllm_is_named() -> None:
    with pytest.raises(MissingExtraError, match="the package vllm"):
        VLLM("model", Vector.of({0: torch.ones(4)}))
