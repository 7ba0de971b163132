"""Wrong parts are caught at load, and a checked model is left as it was."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from steer import Model
from steer.errors import ArchitectureError
from steer.network import block_output, find_architecture
from tests.tiny import FAMILIES, tiny_model, tiny_vlm


def refused(model: nn.Module, match: str, **names: Any) -> ArchitectureError:
    with pytest.raises(ArchitectureError, match=match) as caught:
        find_architecture(model, **names)
    return caught.value


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


# ---- left as it was ------------------------------------------------------------------------


def broken(model: PreTrainedModel) -> PreTrainedModel:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of order")

    model.model.norm.register_forward_pre_hook(fail)
    return model


def off_by_a_little(model: PreTrainedModel) -> PreTrainedModel:
    model.register_forward_hook(_cut_the_last_logit)
    return model


def _cut_the_last_logit(_m: nn.Module, _i: Any, out: Any) -> Any:
    out["logits"] = out["logits"] * torch.ones(128).index_fill(0, torch.tensor([127]), 0.9)
    return out


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that a check could leave behind."""
    tables = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_forward_hooks_with_kwargs",
    )
    return {
        "hooks": [[list(getattr(m, table)) for table in tables] for m in model.modules()],
        "training": [module.training for module in model.modules()],
        "names": [sorted(vars(module)) for module in model.modules()],
        "gradients": [(p.requires_grad, p.grad) for p in model.parameters()],
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "config": model.config.to_dict(),
        "random": torch.get_rng_state(),
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for key in ("hooks", "training", "names", "gradients", "config"):
        assert before[key] == after[key], key
    assert torch.equal(before["random"], after["random"])
    assert before["state"].keys() == after["state"].keys()
    for name, value in before["state"].items():
        assert torch.equal(value, after["state"][name]), name


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("spoil", [broken, off_by_a_little], ids=["raises", "differs"])
def test_nothing_is_left_behind_by_a_failed_check(
    spoil: Callable[[PreTrainedModel], PreTrainedModel], training: bool
) -> None:
    model = spoil(tiny_model("llama").train(training))
    before = snapshot(model)
    refused(model, "cannot be run|does not give")
    assert_same(before, snapshot(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_left_behind_by_a_check(family: str) -> None:
    model = tiny_model(family)
    before = snapshot(model)
    find_architecture(model)
    assert_same(before, snapshot(model))


def test_training_mode_and_frozen_parts_are_kept() -> None:
    dropout = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}
    model = tiny_model("gpt2", **dropout).train()
    model.transformer.h[1].eval()
    before = snapshot(model)
    assert len(set(before["training"])) == 2
    found = find_architecture(model)
    assert_same(before, snapshot(model))
    assert found.n_layers == 4


def test_layers_dropped_in_training_do_not_disturb() -> None:
    model = tiny_model("opt", layerdrop=0.9, dropout=0.5).train()
    assert find_architecture(model).n_layers == 4
    assert model.training


def test_randomness_in_the_model_leaves_the_global_state() -> None:
    model = tiny_model("llama")
    model.model.norm.register_forward_hook(lambda _m, _i, out: out + 0 * torch.rand(()))
    before = torch.get_rng_state()
    find_architecture(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_flow_through_unembed() -> None:
    found = find_architecture(tiny_model("gemma2"))
    h = torch.randn(3, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found.unembed(h).sum().backward()
    assert h.grad is not None
    assert h.grad.abs().max() > 0


# ---- other ways to build a model -----------------------------------------------------------


class Wrapper(nn.Module):
    """Passes on what it does not know, as adapters do."""

    def __init__(self, inner: PreTrainedModel) -> None:
        super().__init__()
        self.base_model = nn.ModuleDict({"model": inner})

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.base_model["model"], name)

    def forward(self, **inputs: Any) -> Any:
        return self.base_model["model"](**inputs)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_wrapped_model(family: str) -> None:
    inner = tiny_model(family)
    bare, wrapped = find_architecture(inner), find_architecture(Wrapper(inner))
    assert wrapped.blocks == bare.blocks
    assert wrapped.body is bare.body
    assert wrapped.names == {part: f"base_model.model.{n}" for part, n in bare.names.items()}


class OldConfig(PreTrainedConfig):
    model_type = "old_style"


class OldBlock(nn.Module):
    """Returns a tuple, as all blocks did before transformers 5."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, h: Tensor) -> tuple[Tensor, None]:
        return h + self.mix(h).tanh(), None


class OldBody(nn.Module):
    """Keeps its parts in a dictionary, and its norms and blocks under names of its own."""

    def __init__(self, width: int, vocab: int, layers: int, sequential: bool) -> None:
        super().__init__()
        blocks = [OldBlock(width) for _ in range(layers)]
        stack = nn.Sequential(*blocks) if sequential else nn.ModuleList(blocks)
        self.parts = nn.ModuleDict(
            {
                "tokens": nn.Embedding(vocab, width),
                "first_norm": nn.LayerNorm(width),
                "stack": stack,
                "last_norm": nn.LayerNorm(width),
            }
        )

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Tensor:
        h = self.parts["first_norm"](self.parts["tokens"](input_ids))
        for block in self.parts["stack"]:
            h = block(h)[0]
        return self.parts["last_norm"](h)


class OldModel(PreTrainedModel):
    config_class = OldConfig

    def __init__(self, config: OldConfig, sequential: bool = False) -> None:
        super().__init__(config)
        sizes = (config.hidden_size, config.vocab_size, config.num_hidden_layers)
        self.inside = OldBody(*sizes, sequential)
        self.to_logits = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> tuple[Tensor]:
        return (self.to_logits(self.inside(input_ids)),)

    def get_input_embeddings(self) -> nn.Module:
        return self.inside.parts["tokens"]


def old_model(kind: type[OldModel] = OldModel, **kwargs: Any) -> OldModel:
    config = OldConfig(hidden_size=16, vocab_size=40, num_hidden_layers=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(config, **kwargs).eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5)
    return model


def test_unembedding_that_is_not_declared_is_named_by_hand() -> None:
    model = old_model()
    error = refused(model, "unembedding of OldModel is not known")
    assert 'unembedding="…"' in error.do
    found = find_architecture(model, unembedding="to_logits")
    assert found.names == {
        "body": "inside",
        "embedding": "inside.parts.tokens",
        "blocks": "inside.parts.stack",
        "final_norm": "inside.parts.last_norm",
        "unembedding": "to_logits",
    }
    assert found.body is model.inside


def test_blocks_that_return_tuples() -> None:
    found = find_architecture(old_model(), unembedding="to_logits")
    with torch.no_grad():
        out = found.blocks[0](torch.ones(1, 2, 16))
    assert isinstance(out, tuple)
    assert block_output(out).shape == (1, 2, 16)


def test_blocks_in_a_sequential_are_named_by_hand() -> None:
    model = old_model(sequential=True)
    refused(model, "decoder blocks of OldModel are not found", unembedding="to_logits")
    found = find_architecture(model, unembedding="to_logits", blocks="inside.parts.stack")
    assert found.n_layers == 3


class Bypassing(OldModel):
    """Runs the blocks itself and never calls its body."""

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> tuple[Tensor]:
        return (self.to_logits(OldBody.forward(self.inside, input_ids)),)


def test_body_that_does_not_run() -> None:
    error = refused(old_model(Bypassing), "body inside", unembedding="to_logits")
    assert error.found == "0 calls"


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
