"""A tiny llama written as a GGUF file, by the writer of the `gguf` package."""

import json
from pathlib import Path

import gguf
import numpy as np
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.tiny import BOS_ID, EOS_ID

_BLOCK = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def write_gguf(path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write a tiny llama and its byte-level tokenizer in float32."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, config.vocab_size, tokenizer)
    _add_weights(writer, model)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, size: int, tokenizer: PreTrainedTokenizerFast) -> None:
    written = json.loads(tokenizer.backend_tokenizer.to_str())
    special = {token["id"] for token in written["added_tokens"]}
    tokens = dict(enumerate(map("<unused{}>".format, range(size))))
    tokens |= {index: token for token, index in tokenizer.get_vocab().items()}
    kinds = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([tokens[index] for index in range(size)])
    writer.add_token_types(
        [kinds.CONTROL if index in special else kinds.NORMAL for index in range(size)]
    )
    writer.add_token_merges([" ".join(pair) for pair in written["model"]["merges"]])
    writer.add_bos_token_id(BOS_ID)
    writer.add_eos_token_id(EOS_ID)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_chat_template(tokenizer.chat_template)


def _add_weights(writer: gguf.GGUFWriter, model: PreTrainedModel) -> None:
    weights = model.state_dict()
    heads, key_heads = model.config.num_attention_heads, model.config.num_key_value_heads
    for stored, name in _WHOLE.items():
        writer.add_tensor(f"{stored}.weight", weights[f"{name}.weight"].numpy())
    for layer in range(model.config.num_hidden_layers):
        for stored, name in _BLOCK.items():
            weight = weights[f"model.layers.{layer}.{name}.weight"]
            count = {"attn_q": heads, "attn_k": key_heads}.get(stored)
            array = weight.numpy() if count is None else _interleaved(weight, count)
            writer.add_tensor(f"blk.{layer}.{stored}.weight", array)


def _interleaved(weight: Tensor, heads: int) -> np.ndarray:
    """Return a projection in the order in which GGUF files of llamas hold rotary pairs."""
    pairs = weight.unflatten(0, (heads, 2, -1)).transpose(1, 2)
    return pairs.reshape(weight.shape).contiguous().numpy()
