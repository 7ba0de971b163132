"""Families outside the usual fourteen, run for real: logit rules, projections, mixed blocks."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from steer.errors import ArchitectureError
from steer.network import find_architecture
from steer.network._architecture.head import LogitRule

BASE = {"vocab_size": 128, "hidden_size": 32, "bos_token_id": 1, "eos_token_id": 2}
USUAL = {
    **BASE,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 64,
    "pad_token_id": 0,
}
FULL = {"layer_types": ["full_attention"] * 3}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
EXPERTS = {
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
}
MAMBA = {"mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8}

# model type -> config, rules on the logits
RULES: dict[str, tuple[dict[str, Any], str]] = {
    "cohere": ({**USUAL, "logit_scale": 0.3}, "multiply 0.3 (logit_scale)"),
    "cohere2": ({**USUAL, **FULL, "logit_scale": 0.3}, "multiply 0.3 (logit_scale)"),
    "falcon_h1": (
        {**USUAL, **MAMBA, "head_dim": 8, "lm_head_multiplier": 0.3},
        "multiply 0.3 (lm_head_multiplier)",
    ),
    "granite": ({**USUAL, "logits_scaling": 3.0}, "divide 3 (logits_scaling)"),
    "granitemoe": (
        {**USUAL, "logits_scaling": 3.0, "num_local_experts": 2, "num_experts_per_tok": 1},
        "divide 3 (logits_scaling)",
    ),
    "hyperclovax": (
        {**USUAL, "head_dim": 8, "logits_scaling": 3.0},
        "multiply 3 (logits_scaling)",
    ),
    "minicpm3": ({**USUAL, **LATENT, "dim_model_base": 8}, "divide 4 (logits_scaling)"),
    "nanochat": (
        {**USUAL, "final_logit_softcapping": 2.0},
        "cap 2 (final_logit_softcapping)",
    ),
    "recurrent_gemma": (
        {**USUAL, "lru_width": 32, "attention_window_size": 8, "logits_soft_cap": 2.0},
        "cap 2 (logits_soft_cap)",
    ),
    "vaultgemma": (
        {**USUAL, **FULL, "head_dim": 8, "final_logit_softcapping": 2.0},
        "cap 2 (final_logit_softcapping)",
    ),
    "xlstm": (
        {**BASE, "num_blocks": 3, "num_hidden_layers": 3, "num_heads": 4}
        | {"output_logit_soft_cap": 2.0, "pad_token_id": 0},
        "cap 2 (output_logit_soft_cap)",
    ),
}
# model type -> config; nothing special, or no rule where there could seem to be one
PLAIN: dict[str, dict[str, Any]] = {
    "deepseek_v2": {**USUAL, **LATENT, **EXPERTS},
    "deepseek_v3": {**USUAL, **LATENT, **EXPERTS, "n_group": 1, "topk_group": 1},
    "jamba": {
        **USUAL,
        "num_experts": 2,
        "mamba_d_state": 4,
        "use_mamba_kernels": False,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
    },
    "mamba": {**BASE, "num_hidden_layers": 3, "state_size": 8, "pad_token_id": 0},
    "mpt": {"vocab_size": 128, "d_model": 32, "n_layers": 3, "n_heads": 4, "logit_scale": 0.5},
    "rwkv": {**BASE, "num_hidden_layers": 4, "rescale_every": 3},
}


def build(model_type: str, config: dict[str, Any]) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **config))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) / 6
            parameter.copy_(noise) if parameter.ndim > 1 else parameter.add_(noise)
    return model.eval()


@pytest.mark.parametrize("model_type", RULES)
def test_logit_rules(model_type: str) -> None:
    config, rule = RULES[model_type]
    found = find_architecture(build(model_type, config))
    assert [str(each) for each in found.logit_rules] == [rule]
    assert rule in repr(found)
    h = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        bare = found.unembedding(found.final_norm(h))
        torch.testing.assert_close(found.unembed(h), found.logit_rules[0](bare))


@pytest.mark.parametrize("model_type", PLAIN)
def test_families_without_a_rule(model_type: str) -> None:
    found = find_architecture(build(model_type, PLAIN[model_type]))
    assert found.logit_rules == ()
    assert found.projection is None


def test_projection_of_modernbert_decoder() -> None:
    model = build("modernbert-decoder", {**USUAL, "global_attn_every_n_layers": 1})
    found = find_architecture(model)
    assert found.names["projection"] == "lm_head"
    assert found.names["unembedding"] == "decoder"


@pytest.mark.parametrize(
    ("kind", "expected"), [("multiply", 1.5), ("divide", 6.0), ("cap", 0.5 * 0.9999877)]
)
def test_rule_formulas(kind: Any, expected: float) -> None:
    logits = torch.tensor([3.0], dtype=torch.float64)
    torch.testing.assert_close(
        LogitRule("field", kind, 0.5)(logits), torch.tensor([expected], dtype=torch.float64)
    )


def test_several_streams_at_once_are_refused() -> None:
    config = {
        **USUAL,
        "num_hidden_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "activation_sparsity_pattern": [0.0, 0.0],
        "num_kv_shared_layers": 0,
        "head_dim": 8,
        "laurel_rank": 4,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 128,
    }
    with pytest.raises(ArchitectureError, match="AltUp runs 4 streams") as caught:
        find_architecture(build("gemma3n_text", config))
    assert "(4, 3, 4, 32)" in str(caught.value.found)
    assert "by hand" not in caught.value.do.partition(":")[0]


def test_rescaling_after_the_last_block_is_refused() -> None:
    config = {**BASE, "num_hidden_layers": 4, "rescale_every": 2}
    with pytest.raises(ArchitectureError, match="does not give the model's logits") as caught:
        find_architecture(build("rwkv", config))
    assert "rwkv.ln_out" in str(caught.value.found)
