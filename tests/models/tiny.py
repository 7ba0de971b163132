"""A tiny random model of every class in the causal mapping of transformers.

Sizes are known by the names of config fields, whatever the family; `_BESIDES` holds what a family
needs besides. A family that cannot be built is listed with the error, never left out.
"""

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCAB = 128

# size -> the names that families give it
_NAMES = {
    4: """num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers depth
        num_decoder_layers num_encoder_layers num_blocks num_attention_heads n_head n_heads
        num_heads attention_heads decoder_attention_heads encoder_attention_heads
        num_encoder_attention_heads num_decoder_attention_heads num_key_value_heads num_kv_heads
        kv_n_heads index_n_heads linear_num_key_heads linear_num_value_heads linear_num_heads
        swa_num_attention_heads swa_num_key_value_heads num_query_groups mamba_num_heads
        num_experts num_local_experts n_routed_experts moe_num_experts""",
    8: """head_dim qk_nope_head_dim qk_rope_head_dim v_head_dim index_head_dim linear_head_dim
        linear_key_head_dim linear_value_head_dim swa_head_dim attention_head_size dim_head d_kv
        kv_channels mamba_n_heads mamba_d_head mamba_headdim mamba_head_dim mamba_d_state
        state_size ssm_state_size index_topk mamba_chunk_size chunk_size d_head laurel_rank d_rel
        hidden_size_per_layer_input sliding_window sliding_window_size window_size rotary_dim""",
    16: """q_lora_rank kv_lora_rank o_lora_rank qk_head_dim moe_intermediate_size mamba_dt_rank
        shared_expert_intermediate_size expert_ffn_hidden_size shared_experts_intermediate_size
        moe_shared_expert_intermediate_size router_hidden_size adapter_rank time_step_rank""",
    32: """hidden_size d_model n_embd embed_dim lru_width attention_hidden_size emb_dim
        embedding_size embedding_dim word_embed_proj_dim hidden_size_global input_embedding_size
        out_hidden_size backbone_hidden_size adapter_in_dim adapter_out_dim adapter_input_size""",
    64: """intermediate_size decoder_ffn_dim encoder_ffn_dim ffn_dim dff dim_ff n_inner d_inner d_ff
        ffn_hidden_size shared_intermediate_size intermediate_size_mlp mlp_dim mamba_d_ssm
        dense_intermediate_size feed_forward_size output_embedding_size""",
    VOCAB: "vocab_size vocab_size_per_layer_input decoder_vocab_size",
    2: "num_experts_per_tok moe_topk moe_k moe_top_k num_experts_per_token",
    1: "n_group topk_group num_expert_group n_groups",
    256: "max_position_embeddings n_positions n_ctx max_seq_len context_length",
}
_SIZE = {name: size for size, names in _NAMES.items() for name in names.split()}

_LOCAL_THEN_GLOBAL = ["sliding_attention", "full_attention"] * 2
_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
_SLIDING = {"num_attention_heads": 4, "num_key_value_heads": 4, "q_lora_rank": 16}
_SLIDING |= {"kv_lora_rank": 16, "head_dim": 16, "qk_nope_head_dim": 8, "v_head_dim": 8}
_DOTS = {f"swa_{name}": value for name, value in _SLIDING.items()} | {"head_dim": 16}
_INDEXED = {"indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 8}
_INDEXED |= {"indexer_budget": 8, "indexer_compress_ratio": 2}
_INSIDE = "text_config."

# model type -> field to value; the field of an inner config is dotted
_BESIDES: Mapping[str, Mapping[str, Any]] = {
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "cohere_compass_text": {
        "layer_types": _LOCAL_THEN_GLOBAL,
        "rope_parameters": dict.fromkeys(_LOCAL_THEN_GLOBAL[:2], _ROPE),
    },
    "dbrx": {"attn_config.rope_theta": 10000.0, "attn_config.clip_qkv": 8.0},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "dots3_note": {"vision_config.num_hidden_layers": 42}
    | {_INSIDE + name: value for name, value in _DOTS.items()},
    "dots3_note_text": _DOTS,
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "inkling_text": {"unpadded_vocab_size": 120},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8},
    "mimo_v2_flash": {"head_dim": 24, "num_key_value_heads": 2},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 4},
    "qwen4_exp": {_INSIDE + name: value for name, value in _INDEXED.items()},
    "qwen4_exp_text": _INDEXED,
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [16, 16]},
    "xlm": {"causal": True},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 6, "attn_layer_period": 3, "attn_layer_offset": 2}
    | {"attention_hidden_size": 64},
    "zamba2": {"attention_hidden_size": 64, "num_hidden_layers": 4}
    | {"layers_block_type": ["linear_attention", "hybrid"] * 2},
}
# models that draft for another: model type -> that of its text config
_DRAFTS = {"gemma4_assistant": "gemma4_text", "gemma4_unified_assistant": "gemma4_unified_text"}
_DRAFT = {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
_DRAFT |= {"num_kv_shared_layers": 0, "use_double_wide_mlp": False}


def model_types() -> tuple[str, ...]:
    """Return every model type of the causal mapping, in the order of the alphabet."""
    return tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))


def class_name(model_type: str) -> str:
    """Return the name of the causal class of a model type."""
    return str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type])


def tiny_config(model_type: str, **fields: Any) -> PreTrainedConfig:
    """Return a small config of a family's own shape.

    Args:
        model_type: One of `model_types()`.
        **fields: Fields of the config, in place of those chosen here.
    """
    kind = CONFIG_MAPPING[model_type]
    if text := _DRAFTS.get(model_type):
        small = _shrunk(CONFIG_MAPPING[text]().to_dict())
        return kind(text_config=CONFIG_MAPPING[text](**small | _DRAFT))
    config = _shrunk(kind().to_dict())
    for path, value in _BESIDES.get(model_type, {}).items():
        inner, _, name = path.rpartition(".")
        holder = config.setdefault(inner, {}) if inner else config
        holder[name] = value
    return kind(**config | fields)


def tiny_causal_model(model_type: str, **fields: Any) -> PreTrainedModel:
    """Return a random model of a family in evaluation mode, the same in every run.

    Args:
        model_type: One of `model_types()`.
        **fields: Fields of its config, in place of those chosen here.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _built(model_type, tiny_config(model_type, **fields))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) / 6
            parameter.copy_(noise) if parameter.ndim > 1 else parameter.add_(noise)
    return model.eval()


def _built(model_type: str, config: PreTrainedConfig) -> PreTrainedModel:
    """Build the causal class, from the decoder's own config where a class takes only that."""
    kind = getattr(transformers, class_name(model_type))
    inner = getattr(config, "decoder", None)
    if isinstance(inner, kind.config_class):
        return kind._from_config(inner, dtype=torch.float32)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def _shrunk(default: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a config that are sizes, made small, those of inner configs too."""
    fields: dict[str, Any] = {}
    for name, value in default.items():
        if isinstance(value, dict) and "model_type" in value:
            fields[name] = _shrunk(value)
        elif name == "is_decoder":
            fields[name] = True
        elif isinstance(value, bool) or not isinstance(value, int):
            continue
        elif name in _SIZE:
            fields[name] = min(value, _SIZE[name])
        elif name.endswith(("_token_id", "_token_index")):
            fields[name] = value % VOCAB
    return fields
