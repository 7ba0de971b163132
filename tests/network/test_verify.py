"""Wrong parts are caught at load."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from torch import Tensor, nn
from transformers import PreTrainedModel

from steer import Model
from steer.errors import ArchitectureError
from steer.network import find_architecture
from tests.network.refusals import broken, refused
from tests.tiny import FAMILIES, tiny_model, tiny_vlm

# ---- names given by hand -------------------------------------------------------------------


def test_right_names_by_hand() -> None:
    model = tiny_model("gpt_neox")
    found = find_architecture(
        model,
        blocks="gpt_neox.layers",
        final_norm="gpt_neox.final_layer_norm",
        unembedding="lm_head",
        embedding="gpt_neox.embed_in",
    )
    assert found.names == find_architecture(model).names


def test_unknown_name_says_what_is_there() -> None:
    error = refused(tiny_model("gpt2"), "names no module", blocks="transformer.layers")
    assert "'h'" in str(error.found)
    assert "transformer has" in str(error.found)


def test_part_of_the_blocks() -> None:
    model = tiny_model("llama")
    model.model.first = nn.ModuleList(model.model.layers[:2])
    refused(model, "does not hold all of the decoder blocks", blocks="model.first")
    model.model.last = nn.ModuleList(model.model.layers[2:])
    error = refused(model, "does not hold all of the decoder blocks", blocks="model.last")
    assert "model.layers.0, model.layers.1 ran too" in str(error.found)
    with pytest.raises(ArchitectureError, match="not the list of decoder blocks") as caught:
        find_architecture(model, blocks="model.first", verify=False)
    assert "model.layers (4 × LlamaDecoderLayer)" in str(caught.value.found)
    assert "4 blocks" in caught.value.expected


def test_no_blocks() -> None:
    refused(tiny_model("llama", layers=0), "is empty")


def test_blocks_in_another_order() -> None:
    model = tiny_model("llama")
    model.model.turned = nn.ModuleList(reversed(model.model.layers))
    error = refused(model, "one after the other", blocks="model.turned")
    assert "3, 2, 1, 0" in str(error.found)


def test_blocks_that_are_only_a_part_of_each_block() -> None:
    model = tiny_model("llama")
    model.model.mlps = nn.ModuleList(layer.mlp for layer in model.model.layers)
    error = refused(model, "does not give the model's logits", blocks="model.mlps")
    assert 'blocks="model.mlps"' in error.do


def test_not_a_list() -> None:
    refused(tiny_model("llama"), "not the list of decoder blocks", blocks="model.norm")


def test_vision_blocks_of_the_right_number() -> None:
    model = tiny_vlm(layers=6, vision_layers=6)
    error = refused(model, "one after the other", blocks="model.visual.blocks")
    assert error.found.endswith("none")


@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_final_norm(family: str) -> None:
    model = tiny_model(family)
    found = find_architecture(model)
    norms = [n for n, m in found.blocks[0].named_modules() if "norm" in type(m).__name__.lower()]
    name = f"{found.names['blocks']}.0.{norms[0]}"
    error = refused(model, "does not give the model's logits", final_norm=name)
    assert name in str(error.found)


@pytest.mark.parametrize("family", FAMILIES)
def test_final_norm_left_out(family: str) -> None:
    refused(tiny_model(family), "does not give the model's logits", final_norm="none")


@pytest.mark.parametrize(
    "name", ["other", "model.layers.0.mlp.gate_proj", "model.layers.0.mlp.down_proj"]
)
def test_wrong_unembedding(name: str) -> None:
    model = tiny_model("llama")
    model.other = nn.Linear(32, 128, bias=False)
    refused(model, "does not give the model's logits", unembedding=name)


def test_position_embedding_is_not_the_token_embedding() -> None:
    error = refused(tiny_model("gpt2"), "not the token embedding", embedding="transformer.wpe")
    assert "transformer.wpe (Embedding)" in str(error)


# ---- models that are not as they seem ------------------------------------------------------


def test_of_two_lists_that_fit_the_one_that_runs_is_taken() -> None:
    model = tiny_model("llama")
    layers = model.model.layers
    del model.model.layers
    model.model.extra = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
    model.model.layers = layers
    assert find_architecture(model).names["blocks"] == "model.layers"
    error = refused(model, "not found", verify=False)
    assert "model.layers (4 × LlamaDecoderLayer)" in str(error.found)
    assert "model.extra (4 × Linear)" in str(error.found)


def test_two_lists_that_fit_and_do_not_hold_are_both_shown() -> None:
    model = broken_order(tiny_model("llama"))
    model.model.extra = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
    error = refused(model, "not found")
    assert "model.layers (4 × LlamaDecoderLayer): the blocks model.layers do not" in str(
        error.found
    )
    assert "model.extra (4 × Linear): the blocks model.extra do not run" in str(error.found)
    assert 'find_architecture(model, blocks="model.layers"' in error.do


def broken_order(model: PreTrainedModel) -> PreTrainedModel:
    """Let the first block run again after the second."""
    first, second = model.model.layers[:2]
    second.register_forward_hook(
        lambda _m, args, kwargs, out: first(out, **kwargs), with_kwargs=True
    )
    return model


def test_no_list_that_fits() -> None:
    model = tiny_model("llama")
    model.model.layers = model.model.layers[:3]
    error = refused(model, "not found")
    assert "model.layers (3 × LlamaDecoderLayer)" in str(error.found)
    assert "4 blocks" in error.expected
    model.config.num_hidden_layers = 3
    assert find_architecture(model).n_layers == 3


def test_experts_are_not_blocks() -> None:
    model = tiny_model("llama")
    for layer in model.model.layers:
        layer.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
    assert find_architecture(model).names["blocks"] == "model.layers"


def test_a_list_of_many_classes_is_not_taken_beside_one_of_blocks() -> None:
    model = tiny_model("llama")
    model.model.extra = nn.ModuleList([nn.Identity(), nn.Tanh(), nn.Tanh(), nn.Identity()])
    assert find_architecture(model).names["blocks"] == "model.layers"


def test_a_block_used_twice() -> None:
    model = tiny_model("llama")
    model.model.layers[2] = model.model.layers[1]
    refused(model, "one after the other")


@pytest.mark.parametrize(
    "change",
    [lambda x: x * 1.001, lambda x: x + 0.01, lambda x: x.tanh(), lambda x: x.flip(-1)],
    ids=["scale", "shift", "cap", "order"],
)
def test_logits_that_are_changed_afterwards(change: Callable[[Tensor], Tensor]) -> None:
    model = tiny_model("llama")

    def changed(_m: nn.Module, _i: Any, out: Any) -> Any:
        out["logits"] = change(out["logits"])
        return out

    model.register_forward_hook(changed)
    error = refused(model, "does not give the model's logits")
    assert "steer.network._architecture.head" in error.do


def test_logit_rule_that_the_model_does_not_follow() -> None:
    model = tiny_model("llama")
    model.config.logit_scale = 0.5
    assert find_architecture(model).logit_rules == ()


def test_logits_that_are_not_finite() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    assert "bfloat16" in refused(model, "not finite").do


def test_logits_of_another_size() -> None:
    model = tiny_model("llama")

    def cut(_m: nn.Module, _i: Any, out: Any) -> Any:
        out["logits"] = out["logits"][..., :100]
        return out

    model.register_forward_hook(cut)
    refused(model, "does not give the model's logits")


def test_a_forward_that_fails() -> None:
    model = tiny_model("llama")
    with pytest.raises(ArchitectureError, match="cannot be run") as caught:
        Model(broken(model))
    assert "RuntimeError: out of order" in str(caught.value.found)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "verify" not in caught.value.do, "what Model does not take is no advice"
    with pytest.raises(ArchitectureError, match="no weights") as caught:
        Model(tiny_model("llama").to("meta"))
    assert "verify" not in caught.value.do


def test_model_without_a_config() -> None:
    refused(nn.Linear(2, 2), "not a causal language model")


def test_offloaded_model() -> None:
    model = tiny_model("llama")
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert next(model.parameters()).is_meta
    assert find_architecture(model).n_layers == 4


def test_block_output_of_another_width() -> None:
    model = tiny_model("llama")
    model.config.hidden_size = 16
    error = refused(model, "no residual stream")
    assert "(3, 4, 32)" in str(error.found)
    assert "(3, 4, 16)" in error.expected


def test_special_tokens_are_not_used_for_the_check() -> None:
    model = tiny_vlm()
    model.config.image_token_id, model.config.text_config.eos_token_id = 43, [44, 46]
    seen: list[Tensor] = []
    embedding = model.get_input_embeddings()
    embedding.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    find_architecture(model)
    ids = seen[0].flatten().tolist()
    assert len(set(ids)) == 8
    assert not {43, 44, 46} & set(ids)
    assert {42, 45, 47} <= set(ids)


def test_tiny_vocabulary_still_gives_valid_ids() -> None:
    assert find_architecture(tiny_model("llama", vocab=4)).vocab == 4
