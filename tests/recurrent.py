"""Tiny random models that carry a state from token to token, and models that ignore padding."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.tiny import BOS_ID, EOS_ID, randomised

_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
_XLSTM = {"embedding_dim": 32, "num_blocks": 4, "num_heads": 4, "chunk_size": 8}
_WIDE = {"qk_dim_factor": 2.0, "v_dim_factor": 2.0}  # its config rounds both up to 64
_ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 1, "attention_window_size": 8}
_SPEECH = {
    "d_model": 32,
    "decoder_layers": 4,
    "num_hidden_layers": 4,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 64,
    "encoder_layers": 1,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "max_target_positions": 128,
}
_USUAL = {"hidden_size": 32, "num_hidden_layers": 4, "intermediate_size": 64}
_VISION = {**_USUAL, "num_attention_heads": 4, "image_size": 32}
_BY_KEYWORD = {"state_size": 8, "time_step_rank": 4, "hidden_size": 32, "num_hidden_layers": 4}

# family -> fields of its config, beside the vocabulary and special tokens
_TABLE: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "mamba": _BY_KEYWORD,
        "mamba2": {**_BY_KEYWORD, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 8},
        "falcon_mamba": _BY_KEYWORD,
        "rwkv": {**_USUAL, "attention_hidden_size": 32},
        "xlstm": {"hidden_size": 32, "num_hidden_layers": 4, **_XLSTM, **_WIDE},
        "recurrent_gemma": {**_USUAL, **_ATTENTION, "lru_width": 32, "rope_parameters": _ROPE},
        "whisper": _SPEECH,
        "git": {**_USUAL, "num_attention_heads": 4, "vision_config": _VISION},
    }
)
STATEFUL = ("mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm", "recurrent_gemma")
IGNORE_PADDING = ("rwkv", "xlstm", "recurrent_gemma", "whisper", "git")


def tiny_recurrent(family: str, *, vocab: int = 128, seed: int = 0) -> PreTrainedModel:
    """A random model of 4 layers and width 32 of one of these families, in eval mode.

    Args:
        family: One of ``STATEFUL`` or ``IGNORE_PADDING``.
        vocab: Vocabulary size.
        seed: The weights depend on this and the vocabulary alone.
    """
    special = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": 0}
    config = AutoConfig.for_model(family, vocab_size=vocab, **special, **_TABLE[family])
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return randomised(model, seed).eval()
