"""A model whose logits depend on later tokens, or on padding, is refused when it is loaded."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration, PreTrainedModel

import steer
from steer.errors import ArchitectureError
from tests.models.tiny import tiny_causal_model
from tests.tiny import FAMILIES, tiny_model

PRECISIONS = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def refused(model: nn.Module, match: str) -> ArchitectureError:
    with pytest.raises(ArchitectureError, match=match) as caught:
        steer.Model(model)
    return caught.value


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra", "roformer"])
def test_an_encoder_is_refused(model_type: str, dtype: torch.dtype) -> None:
    model = tiny_causal_model(model_type, is_decoder=False).to(dtype)
    error = refused(model, "is not causal: changing the last token")
    assert "is_decoder=True" in error.do
    assert "of what its own move by" in str(error.found)


def test_a_model_that_is_told_to_be_causal() -> None:
    assert "causal=True" in refused(tiny_causal_model("xlm", causal=False), "not causal").do


def paligemma() -> PreTrainedModel:
    text = {"model_type": "gemma", "vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    vision = {"model_type": "siglip_vision_model", "hidden_size": 32, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 4, "intermediate_size": 64, "image_size": 16, "patch_size": 8}
    config = PaliGemmaConfig(
        text_config=text | {"intermediate_size": 64},
        vision_config=vision | {"projection_dim": 32},
        image_token_id=127,
        projection_dim=32,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = PaliGemmaForConditionalGeneration(config)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
    return model.eval()


def test_a_prefix_model_is_refused() -> None:
    error = refused(paligemma(), "PaliGemmaForConditionalGeneration is not causal")
    assert "take a model" in error.do


@pytest.mark.parametrize(
    ("dtype", "share"), [*zip(PRECISIONS, (0.01, 0.3, 0.3, 1e-4), strict=True)], ids=str
)
def test_later_tokens_that_are_read_a_little(dtype: torch.dtype, share: float) -> None:
    model = tiny_model("llama", dtype=dtype)
    model.model.norm.register_forward_hook(lambda _m, _a, h: h + share * h.mean(1, keepdim=True))
    refused(model, "is not causal")


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_padding_that_is_read(dtype: torch.dtype) -> None:
    model, padding = tiny_model("llama", dtype=dtype), torch.zeros(())

    def note(_m: nn.Module, _a: Any, inputs: dict[str, Any]) -> None:
        nonlocal padding
        if (mask := inputs.get("attention_mask")) is not None:
            padding = 1 - mask.float().mean(1)[:, None, None]

    model.register_forward_pre_hook(note, with_kwargs=True)
    model.model.norm.register_forward_hook(lambda _m, _a, h: h + padding.to(h) * h.flip(-1))
    error = refused(model, "reads padding")
    assert "unpadded beside it" in str(error.found)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_mask_that_changes_rows_without_padding(dtype: torch.dtype) -> None:
    model = tiny_model("llama", dtype=dtype)
    given = [False]
    model.register_forward_pre_hook(
        lambda _m, _a, inputs: given.__setitem__(0, inputs.get("attention_mask") is not None),
        with_kwargs=True,
    )
    model.model.norm.register_forward_hook(lambda _m, _a, h: h.flip(-1) if given[0] else h)
    assert "without a mask" in str(refused(model, "reads padding").found)


def test_a_scale_that_all_rows_of_a_batch_share_is_no_padding_that_is_read() -> None:
    """Quantised activations are scaled by the largest of a batch, padding or not."""
    model, tokens = tiny_model("llama"), torch.zeros(())

    def note(_m: nn.Module, _a: Any, inputs: dict[str, Any]) -> None:
        nonlocal tokens
        tokens = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).float().sum()

    model.register_forward_pre_hook(note, with_kwargs=True)
    model.model.norm.register_forward_hook(lambda _m, _a, h: h + (12 - tokens) * h.flip(-1))
    steer.Model(model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_rounding_is_no_reason_to_refuse(family: str, dtype: torch.dtype) -> None:
    steer.Model(tiny_model(family, layers=12, width=64, dtype=dtype))


def test_two_short_forwards_are_run() -> None:
    model, shapes = tiny_model("llama"), []
    model.register_forward_pre_hook(
        lambda _m, _a, inputs: shapes.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    steer.Model(model)
    assert shapes == [(3, 4), (3, 4)]


def test_a_model_that_is_not_verified_is_not_run() -> None:
    steer.Model(tiny_causal_model("bert", is_decoder=False), verify=False)
