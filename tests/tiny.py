"""Tiny random models and tokenizers, built in memory, for every test.

``tiny_model("llama")`` is a 4-layer, 32-wide causal language model in eval mode whose weights,
biases and norms are all random and depend on the seed alone. Nothing here is downloaded, and the
global random state is left as it was found.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
BOS_ID, EOS_ID = 1, 2
ROLES = ("system", "user", "assistant")

_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_LOCAL = {"sliding_window": 8, "head_dim": 8, "num_key_value_heads": 2}

# family -> (model type, names of the config's layer count, width, inner width and heads, rest)
_USUAL = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
_TABLE: Mapping[str, tuple[str, tuple[str, str, str, str], Mapping[str, Any]]] = MappingProxyType(
    {
        "llama": ("llama", _USUAL, {"num_key_value_heads": 2}),
        "mistral": ("mistral", _USUAL, {"num_key_value_heads": 2, "sliding_window": None}),
        "qwen2": ("qwen2", _USUAL, {"num_key_value_heads": 2}),
        "qwen3": ("qwen3", _USUAL, {"num_key_value_heads": 2, "head_dim": 8}),
        "gemma2": ("gemma2", _USUAL, {**_LOCAL, "query_pre_attn_scalar": 8}),
        "gemma3": ("gemma3_text", _USUAL, {**_LOCAL, "query_pre_attn_scalar": 8}),
        "phi3": ("phi3", _USUAL, {"num_key_value_heads": 2}),
        "olmo2": ("olmo2", _USUAL, {"num_key_value_heads": 2}),
        "gpt2": ("gpt2", ("n_layer", "n_embd", "n_inner", "n_head"), {}),
        "gpt_neox": ("gpt_neox", _USUAL, {}),
        "opt": ("opt", ("num_hidden_layers", "hidden_size", "ffn_dim", "num_attention_heads"), {}),
        "falcon": (
            "falcon",
            ("num_hidden_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads"),
            {},
        ),
        "mixtral": ("mixtral", _USUAL, {"num_key_value_heads": 2, **_EXPERTS}),
        "qwen3_moe": (
            "qwen3_moe",
            _USUAL,
            {"num_key_value_heads": 2, "moe_intermediate_size": 16, **_EXPERTS},
        ),
    }
)
FAMILIES: tuple[str, ...] = tuple(_TABLE)
MIXTURES = ("mixtral", "qwen3_moe")  # of experts: one multiplies the tokens of all rows at once
_ALTERNATING = ("gemma2", "gemma3")  # local and global attention in turn
_WIDTH_NAMES = {"word_embed_proj_dim"}  # opt: follows the width unless overridden


def tiny_config(
    family: str, *, layers: int = 4, width: int = 32, vocab: int = 128, **config_overrides: Any
) -> PreTrainedConfig:
    """The config of one family, with every size honoured or an error.

    Args:
        family: One of ``FAMILIES``.
        layers: Number of decoder blocks.
        width: Width of the residual stream, a multiple of 8.
        vocab: Vocabulary size.
        **config_overrides: Fields of the family's own config class.

    Raises:
        ValueError: A field is unknown to the config class, or a size was ignored.
    """
    model_type, names, extra = _TABLE[family]
    known = AutoConfig.for_model(model_type)
    fields: dict[str, Any] = dict(zip(names, (layers, width, 2 * width, 4), strict=True))
    fields |= {"vocab_size": vocab, "bos_token_id": BOS_ID, "eos_token_id": EOS_ID}
    fields |= {"pad_token_id": None, **extra}
    if family in _ALTERNATING:
        fields["layer_types"] = [
            ("sliding_attention", "full_attention")[layer % 2] for layer in range(layers)
        ]
    fields |= {name: width for name in _WIDTH_NAMES if hasattr(known, name)}
    fields |= config_overrides
    if unknown := sorted(name for name in fields if not hasattr(known, name)):
        raise ValueError(f"{type(known).__name__} has no field {unknown}")
    config = AutoConfig.for_model(model_type, **fields)
    text = config.get_text_config()
    found = (text.num_hidden_layers, text.hidden_size, text.vocab_size)
    expected = (fields[names[0]], fields[names[1]], fields["vocab_size"])
    if found != expected:
        raise ValueError(f"{type(known).__name__} ignored its sizes: {found}, not {expected}")
    return config


def tiny_model(
    family: str,
    *,
    layers: int = 4,
    width: int = 32,
    vocab: int = 128,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **config_overrides: Any,
) -> PreTrainedModel:
    """A random causal language model of one family in eval mode.

    Args:
        family: One of ``FAMILIES``.
        layers: Number of decoder blocks.
        width: Width of the residual stream, a multiple of 8.
        vocab: Vocabulary size.
        seed: The weights depend on this and the sizes alone.
        dtype: Weights are drawn in float32 and then cast.
        **config_overrides: Fields of the family's own config class.
    """
    config = tiny_config(family, layers=layers, width=width, vocab=vocab, **config_overrides)
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return randomised(model, seed).to(dtype).eval()


def tiny_vlm(
    *,
    layers: int = 3,
    vision_layers: int = 6,
    width: int = 32,
    vocab: int = 128,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """A Qwen2-VL-like model with more vision blocks than text blocks, in eval mode."""
    text = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": 2 * width,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": vocab,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [2, 1, 1],
        },
    }
    vision = {
        "depth": vision_layers,
        "embed_dim": width,
        "hidden_size": width,
        "num_heads": 4,
        "mlp_ratio": 2,
        "patch_size": 4,
    }
    specials = {
        name: vocab - 1 - i
        for i, name in enumerate(
            ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
        )
    }
    config = Qwen2VLConfig(text_config=text, vision_config=vision, **specials)
    with torch.random.fork_rng(devices=[]):
        model = Qwen2VLForConditionalGeneration(config)
    return randomised(model, seed).to(dtype).eval()


def randomised(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Draws every parameter anew, so that no bias is zero and no norm is the identity.

    Matrices get a standard deviation of 1/sqrt(width); norms and biases are moved by 0.2.
    """
    generator = torch.Generator().manual_seed(seed)
    std = model.config.get_text_config().hidden_size ** -0.5
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                parameter.copy_(std * noise)
            else:
                parameter.add_(0.2 * noise)
    return model


_TEXTS = (
    "What is the usual dose of this drug, and who should not take it?",
    "Ask a doctor. The dose depends on the weight, the age and the kidneys of the patient.",
    "Is this contract binding, and what happens when one party does not pay?",
    "The court can set the contract aside; the other party may then claim damages.",
    "Should the bond or the share be sold first when the interest rate rises?",
    "I cannot help with that. The price of the bond falls when the rate rises.",
)

_CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}" + EOS + "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_tokenizer(vocab: int = 128) -> PreTrainedTokenizerFast:
    """A byte-level BPE over printable ASCII with a bos token, a chat template and no pad token.

    All ids are below ``vocab``, other characters become ``<unk>``, and encoding with special
    tokens puts one ``<s>`` in front.
    """
    tokenizer = plain_tokenizer(vocab)
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def plain_tokenizer(vocab: int = 128) -> PreTrainedTokenizerFast:
    """The same tokenizer without a chat template.

    Raises:
        ValueError: ``vocab`` leaves no room for the alphabet (about 105 tokens).
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    characters = "".join(map(chr, range(32, 127))) + "\n"
    alphabet = [c.translate({32: "Ġ", 10: "Ċ"}) for c in characters]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        initial_alphabet=alphabet,
        special_tokens=[UNK, BOS, EOS, *(f"<|{role}|>" for role in ROLES)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXTS, trainer)
    if tokenizer.get_vocab_size() > vocab:
        raise ValueError(f"{tokenizer.get_vocab_size()} tokens do not fit into {vocab}")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, BOS_ID)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=UNK, bos_token=BOS, eos_token=EOS
    )
