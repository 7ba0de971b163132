"""What leads from the last block to the logits, where it is not a norm and a linear map."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

import steer
from steer.errors import ArchitectureError
from steer.network import Architecture, block_output, find_architecture
from tests.models.tiny import tiny_causal_model
from tests.tiny import tiny_model

IDS = torch.tensor([[3, 50, 7, 99, 20], [11, 12, 64, 30, 31]])


def logits_by_unembed(found: Architecture) -> tuple[Tensor, Tensor]:
    """The readout of a text that the check at load has not seen, and the model's own logits."""
    seen: list[Tensor] = []
    last = found.blocks[-1]
    handle = last.register_forward_hook(lambda _m, _i, out: seen.append(block_output(out)))
    with torch.no_grad():
        logits = found.model(input_ids=IDS, use_cache=False).logits
        handle.remove()
        return found.unembed(seen[0]), logits


# model type -> final norm, projection, unembedding
READOUTS = {
    "bert": ("none", None, "cls"),
    "big_bird": ("none", None, "cls"),  # its pooler runs between blocks and head
    "electra": ("none", "generator_predictions", "generator_lm_head"),
    "rembert": ("none", None, "cls"),
    "roberta": ("none", None, "lm_head"),
    "roberta-prelayernorm": ("roberta_prelayernorm.LayerNorm", None, "lm_head"),
    "bart": ("none", None, "lm_head"),
    "mbart": ("model.decoder.layer_norm", None, "lm_head"),
    "trocr": ("none", None, "output_projection"),
    "xlm": ("none", None, "pred_layer.proj"),
    "git": ("none", None, "output"),
}


@pytest.mark.parametrize("model_type", READOUTS)
def test_what_runs_after_the_last_block_is_the_readout(model_type: str) -> None:
    found = find_architecture(tiny_causal_model(model_type))
    names = [found.names.get(part) for part in ("final_norm", "projection", "unembedding")]
    assert tuple(names) == READOUTS[model_type]
    torch.testing.assert_close(*logits_by_unembed(found))
    assert list(found.names)[-1] == "unembedding"


@pytest.mark.parametrize("model_type", ["bert", "electra", "roberta-prelayernorm"])
def test_a_readout_that_was_found_can_be_named_by_hand(model_type: str) -> None:
    model = tiny_causal_model(model_type)
    found = find_architecture(model)
    parts = ("blocks", "final_norm", "unembedding", "embedding")
    again = find_architecture(model, **{part: found.names[part] for part in parts})
    assert again.names == found.names


@pytest.mark.parametrize(
    "named", [{"unembedding": "cls.predictions.decoder"}, {"final_norm": "bert.encoder.ln"}]
)
def test_a_wrong_part_named_by_hand_is_not_replaced(named: dict[str, str]) -> None:
    model = tiny_causal_model("bert")
    model.bert.encoder.ln = nn.LayerNorm(32)
    with pytest.raises(ArchitectureError, match="does not give the model's logits") as caught:
        find_architecture(model, **named)
    assert next(iter(named.values())) in str(caught.value.found)


# ---- scales ----------------------------------------------------------------------------------


def test_a_scale_under_a_name_that_no_table_has() -> None:
    model = tiny_model("llama")
    model.config.output_logits_multiplier = 0.3
    model.register_forward_hook(scaled(0.3))
    found = find_architecture(model)
    assert [str(rule) for rule in found.logit_rules] == ["multiply 0.3 (output_logits_multiplier)"]
    torch.testing.assert_close(*logits_by_unembed(found))


def test_a_scale_that_is_not_that_of_the_config_is_refused() -> None:
    model = tiny_model("llama")
    model.config.output_logits_multiplier = 0.3
    model.register_forward_hook(scaled(0.31))
    with pytest.raises(ArchitectureError, match="does not give the model's logits"):
        find_architecture(model)


def scaled(factor: float) -> Any:
    """A hook of a model that multiplies its logits."""

    def hook(_m: nn.Module, _i: Any, out: Any) -> Any:
        out["logits"] = factor * out["logits"]
        return out

    return hook


def test_scale_and_padded_vocabulary_of_inkling() -> None:
    found = find_architecture(tiny_causal_model("inkling_text"))
    rules = ["divide 24 (logits_mup_width_multiplier)", "first 120 (unpadded_vocab_size)"]
    assert [str(rule) for rule in found.logit_rules] == rules
    assert found.vocab == 120
    torch.testing.assert_close(*logits_by_unembed(found))


def granite_that_sees() -> PreTrainedModel:
    """LLaVA over a text model whose config scales logits, which LLaVA's head does not do."""
    text = {"model_type": "granite", "vocab_size": 128, "hidden_size": 32, "intermediate_size": 64}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    vision = {"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64}
    vision |= {"num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 16, "patch_size": 8}
    config = AutoConfig.for_model(
        "llava",
        text_config=text | {"logits_scaling": 3.0},
        vision_config=vision | {"projection_dim": 32},
        image_token_index=127,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_a_scale_that_the_multimodal_head_does_not_apply() -> None:
    found = find_architecture(granite_that_sees())
    assert found.logit_rules == ()
    assert found.names["blocks"] == "model.language_model.layers"
    torch.testing.assert_close(*logits_by_unembed(found))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_soft_cap_that_small_logits_hardly_show(dtype: torch.dtype) -> None:
    model = tiny_model("gemma2", dtype=dtype)
    with torch.no_grad():
        model.lm_head.weight.mul_(1e-2)
    assert [rule.kind for rule in find_architecture(model).logit_rules] == ["cap"]
    model.config.final_logit_softcapping = None
    model.config.get_text_config().logits_soft_cap = 30.0
    assert find_architecture(model).logit_rules == ()


@pytest.mark.parametrize("model_type", ["mamba", "mamba2", "falcon_mamba", "zaya"])
def test_a_stream_in_float32_before_a_head_in_half_precision(model_type: str) -> None:
    found = find_architecture(tiny_causal_model(model_type).to(torch.bfloat16))
    ours, logits = logits_by_unembed(found)
    assert ours.dtype == logits.dtype or logits.dtype == torch.float32
    torch.testing.assert_close(ours.float(), logits.float(), rtol=2e-2, atol=2e-2)


# ---- counts of blocks ------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["blenderbot", "longcat_flash"])
def test_a_count_of_blocks_under_another_name(model_type: str) -> None:
    model = tiny_causal_model(model_type)
    assert model.config.get_text_config(decoder=True).num_hidden_layers != 4
    assert steer.Model(model).n_layers == 4
    assert find_architecture(model, verify=False).n_layers == 4


def test_a_count_that_the_config_does_not_state_is_named_by_hand() -> None:
    model = tiny_model("llama")
    model.config.num_hidden_layers = 8
    with pytest.raises(ArchitectureError, match="are not found") as caught:
        find_architecture(model)
    assert 'blocks="model.layers"' in caught.value.do
    model = tiny_model("llama")
    model.model.layers = nn.ModuleList(model.model.layers[:3])
    assert find_architecture(model, blocks="model.layers").n_layers == 3


# ---- what is said of the rest ----------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["git", "phi4_multimodal"])
def test_hints_do_not_name_an_encoder_first(model_type: str) -> None:
    model = tiny_causal_model(model_type)
    right = find_architecture(model).names["blocks"]
    with pytest.raises(ArchitectureError, match="are not found") as caught:
        find_architecture(model, verify=False)
    assert f'blocks="{right}"' in caught.value.do
    model.config.num_hidden_layers = 9
    with pytest.raises(ArchitectureError, match="are not found") as caught:
        find_architecture(model)
    assert f'blocks="{right}"' in caught.value.do


STREAMS = {
    "deepseek_v4": "hyper-connections",
    "gemma3n_text": "AltUp",
    "hrm_text": "loops",
    "hy_v4": "hyper-connections",
    "inkling2_text": "attention residuals",
    "musicgen": "codebooks",
    "prophetnet": "n-gram",
    "qwen4_exp": "hyper-connections",
    "reformer": "reversible",
    "xlnet": r"\[pos, batch, d_model\]",
}


@pytest.mark.parametrize("model_type", STREAMS)
def test_a_model_without_a_single_stream_is_refused_with_the_reason(model_type: str) -> None:
    match = f"has no single residual stream to steer: .*{STREAMS[model_type]}"
    with pytest.raises(ArchitectureError, match=match) as caught:
        steer.Model(tiny_causal_model(model_type))
    assert caught.value.do.startswith("take another model")


def test_blocks_that_run_with_an_image_only_are_named() -> None:
    with pytest.raises(ArchitectureError, match="do not run on text alone") as caught:
        steer.Model(tiny_causal_model("mllama"))
    assert "MllamaCrossAttentionDecoderLayer at 3" in str(caught.value.found)
