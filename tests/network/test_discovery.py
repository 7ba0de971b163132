"""Discovery on the meta device, from the default config of many model types."""

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
)

from steer.errors import ArchitectureError
from steer.network import find_architecture

# model type -> body, blocks, final norm within the body, unembedding
H = ("transformer", "transformer.h", "ln_f", "lm_head")
USUAL = ("model", "model.layers", "norm", "lm_head")
VISION = ("model.language_model", "model.language_model.layers", "norm", "lm_head")
STATE = ("backbone", "backbone.layers", "norm_f", "lm_head")
TEXT = {
    "apertus": USUAL,
    "biogpt": ("biogpt", "biogpt.layers", "layer_norm", "output_projection"),
    "bloom": H,
    "codegen": H,
    "cohere": USUAL,
    "cohere2": USUAL,
    "cpmant": ("cpmant", "cpmant.encoder.layers", "encoder.output_layernorm", "lm_head"),
    "ctrl": ("transformer", "transformer.h", "layernorm", "lm_head"),
    "deepseek_v2": USUAL,
    "deepseek_v3": USUAL,
    "exaone4": USUAL,
    "falcon": H,
    "falcon_h1": ("model", "model.layers", "final_layernorm", "lm_head"),
    "falcon_mamba": STATE,
    "gemma": USUAL,
    "gemma2": USUAL,
    "gemma3_text": USUAL,
    "gemma4_text": USUAL,
    "glm": USUAL,
    "glm4": USUAL,
    "gpt2": H,
    "gpt_bigcode": H,
    "gpt_neo": H,
    "gpt_neox": ("gpt_neox", "gpt_neox.layers", "final_layer_norm", "lm_head"),
    "gpt_oss": USUAL,
    "gptj": H,
    "granite": USUAL,
    "granitemoe": USUAL,
    "helium": USUAL,
    "jamba": ("model", "model.layers", "final_layernorm", "lm_head"),
    "lfm2": ("model", "model.layers", "embedding_norm", "lm_head"),
    "llama": USUAL,
    "mamba": STATE,
    "mamba2": STATE,
    "mistral": USUAL,
    "mixtral": USUAL,
    "modernbert-decoder": ("model", "model.layers", "final_norm", "decoder"),
    "mpt": ("transformer", "transformer.blocks", "norm_f", "lm_head"),
    "nanochat": USUAL,
    "olmo": USUAL,
    "olmo2": USUAL,
    "olmoe": USUAL,
    "openai-gpt": ("transformer", "transformer.h", None, "lm_head"),
    "opt": ("model.decoder", "model.decoder.layers", "final_layer_norm", "lm_head"),
    "persimmon": ("model", "model.layers", "final_layernorm", "lm_head"),
    "phi": ("model", "model.layers", "final_layernorm", "lm_head"),
    "phi3": USUAL,
    "phimoe": USUAL,
    "qwen2": USUAL,
    "qwen2_moe": USUAL,
    "qwen3": USUAL,
    "qwen3_moe": USUAL,
    "qwen3_next": USUAL,
    "recurrent_gemma": ("model", "model.layers", "final_norm", "lm_head"),
    "rwkv": ("rwkv", "rwkv.blocks", "ln_out", "head"),
    "smollm3": USUAL,
    "stablelm": USUAL,
    "starcoder2": USUAL,
    "xglm": ("model", "model.layers", "layer_norm", "lm_head"),
    "xlstm": ("backbone", "backbone.blocks", "out_norm", "lm_head"),
    "zamba2": ("model", "model.layers", "final_layernorm", "lm_head"),
}
IMAGES = {
    "gemma3": VISION,
    "idefics3": ("model.text_model", "model.text_model.layers", "norm", "lm_head"),
    "llava": VISION,
    "mistral3": VISION,
    "paligemma": VISION,
    "qwen2_5_vl": VISION,
    "qwen2_vl": VISION,
    "qwen3_vl": VISION,
}
TABLE = [(name, AutoModelForCausalLM, places) for name, places in TEXT.items()]
TABLE += [(name, AutoModelForImageTextToText, places) for name, places in IMAGES.items()]


def on_meta(model_type: str, auto: type = AutoModelForCausalLM) -> PreTrainedModel:
    with torch.device("meta"):
        return auto.from_config(AutoConfig.for_model(model_type))


@pytest.mark.parametrize(("model_type", "auto", "places"), TABLE, ids=[row[0] for row in TABLE])
def test_parts_by_discovery_alone(
    model_type: str, auto: type, places: tuple[str, str, str | None, str]
) -> None:
    model = on_meta(model_type, auto)
    found = find_architecture(model, verify=False)
    body, blocks, norm, unembedding = places
    assert found.names["body"] == body
    assert found.names["blocks"] == blocks
    assert found.names["final_norm"] == (f"{body}.{norm}" if norm else "none")
    assert found.names["unembedding"] == unembedding
    text = model.config.get_text_config(decoder=True)
    assert len(found.blocks) == found.n_layers == text.num_hidden_layers
    assert (found.d_model, found.vocab) == (text.hidden_size, text.vocab_size)


def test_verification_needs_weights() -> None:
    with pytest.raises(ArchitectureError, match="no weights") as caught:
        find_architecture(on_meta("llama"))
    assert "without device_map='meta'" in caught.value.do


def test_byte_latent_model_without_one_stack_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="has no single residual stream") as caught:
        find_architecture(on_meta("blt"), verify=False)
    assert "num_hidden_layers" in str(caught.value.found)


def test_encoder_decoder_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="encoder-decoder"):
        find_architecture(on_meta("t5", AutoModelForSeq2SeqLM), verify=False)


def test_model_without_unembedding_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="unembedding of LlamaModel") as caught:
        find_architecture(on_meta("llama", AutoModel), verify=False)
    assert "AutoModelForCausalLM" in caught.value.do
