"""What `generate` and `steered` refuse before anything runs."""

import pytest
import torch

import steer
from steer.errors import CompositionError, TextError
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def lm():
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


@pytest.mark.parametrize("prompts", [[1], ["the sea", None], None])
def test_what_is_no_prompt_is_named(lm, prompts):
    with pytest.raises(TextError):
        lm.generate(prompts)


def test_at_least_one_prompt_is_run_at_once(lm):
    with pytest.raises(TextError, match="batch_size 0"):
        lm.generate(["the sea"], batch_size=0)


@pytest.mark.parametrize("value", [1e300, [1e39], {"vector": -1e300}, [[1e300]]])
def test_a_coefficient_beyond_float32_is_refused(lm, value):
    with pytest.raises(CompositionError, match="cannot be used"):
        lm.steered(steer.Vector.of({1: torch.ones(lm.d_model)}), value)
