"""Weight sites that are merged or refused, and models that wrap or hide them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steer import Dense, LowRank, Model, Vector, Weight
from steer.engine._weights.uses import uses_of
from steer.errors import CapabilityError, FitError
from steer.merge import merger_of
from tests.conformance import cases
from tests.conformance.cases import Snapshot, close, far, same_bits
from tests.engine.weight_sites import logits, untied
from tests.tiny import MIXTURES, tiny_model, tiny_tokenizer
from tests.weights import everywhere, merged

PROJECTION = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize("way", ["auto", "merge"])
def test_what_a_hook_cannot_do_is_merged_for_one_setting(way: Any) -> None:
    hf = tiny_model("llama")
    lm = Model(hf)
    v = Vector({**everywhere(hf).terms, **untied(hf, PROJECTION, 3).terms})
    merged_names = [PROJECTION] if way == "auto" else sorted(s.name for s in v.sites)  # type: ignore[union-attr]
    plain, before = logits(hf), Snapshot(hf)
    with lm.steered(v, 0.75, weights=way) as handle:
        assert sorted(merger_of(hf).names) == merged_names
        close(logits(hf), logits(merged(hf_copy(before), (v, 0.75)).float()))
        handle.update(-0.5)
        close(logits(hf), logits(merged(hf_copy(before), (v, -0.5)).float()))
        handle.update(0.0)
        assert same_bits(logits(hf), plain)
    before.check(hf)
    assert same_bits(logits(hf), plain)


def hf_copy(snapshot: Snapshot) -> Any:
    hf = tiny_model("llama")
    hf.load_state_dict(snapshot.state)
    return hf


def test_a_mixture_with_merged_sites_and_residual_rows_of_another_context() -> None:
    hf = tiny_model("llama")
    lm = Model(hf)
    before = Snapshot(hf)
    dense_one, residual = untied(hf, PROJECTION, 3), cases.vector(1)
    both = Vector({**dense_one.terms, **residual.terms})
    with lm.steered(both, 0.5):
        found = logits(hf)
    with lm.steered(dense_one.truncate(32), 0.5), lm.steered(residual, [{"vector": 0.5}] * 4):
        close(logits(hf), found)
    before.check(hf)


@pytest.mark.parametrize(
    ("options", "coefficients", "match"),
    [
        ({}, [{}] * 4, "one setting per row"),
        ({"scope": "prompt"}, 1.0, "the scope 'prompt'"),
        ({"gate": cases.gate()}, 1.0, "a gate"),
    ],
)
@pytest.mark.parametrize("way", ["auto", "merge", "hook"])
def test_a_dense_matrix_is_refused_where_it_cannot_be_merged(
    options: dict[str, Any], coefficients: Any, match: str, way: Any
) -> None:
    hf = tiny_model("llama")
    lm = Model(hf)
    before = Snapshot(hf)
    domains = dict.fromkeys(cases.DOMAINS, untied(hf, PROJECTION, 3))
    handle = lm.steered(domains, coefficients, weights=way, **options)
    cost = r"64×32 by hook costs .* 2,048 products per token again"
    with pytest.raises(CapabilityError) as caught:
        handle.attach()
    text = str(caught.value)
    if way != "hook":
        assert match in text
    if way != "merge":
        import re

        assert re.search(cost, text)
        assert "truncate(rank)" in text
    assert not handle.active
    before.check(hf)
    with lm.steered({k: v.truncate(4) for k, v in domains.items()}, coefficients, **options):
        pass


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_and_routers_are_merged_only(family: str) -> None:
    hf = tiny_model(family)
    lm = Model(hf)
    parameters = dict(hf.named_parameters())
    fused = next(n for n, p in parameters.items() if p.ndim == 3)
    router = next(n for n in parameters if ".mlp.gate." in n)
    shape = parameters[router].shape
    low = LowRank(torch.ones(shape[0], 1), torch.ones(1, shape[1]))
    for name, term, reason in (
        (fused, Dense(0.1 * torch.ones(parameters[fused].shape)), "is no matrix"),
        (router, low, "not linear in it"),
    ):
        v = Vector({Weight(name): term})
        plain = logits(hf)
        with pytest.raises(CapabilityError, match=reason):
            lm.steered(v, weights="hook").attach()
        with pytest.raises(CapabilityError, match=reason):
            lm.steered({"v": v}, [{"v": 1.0}] * 4).attach()
        with lm.steered(v, 1.0):
            assert merger_of(hf).names == (name,)
        assert same_bits(logits(hf), plain)


class Peeking(nn.Module):
    """Multiplies with the weight of a child instead of calling it, as state-space models do."""

    def __init__(self, down: nn.Linear) -> None:
        super().__init__()
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.down.weight.T


def test_a_parameter_used_outside_its_module_is_refused() -> None:
    hf = tiny_model("llama")
    mlp: Any = hf.model.layers[1].mlp
    mlp.down_proj = Peeking(mlp.down_proj)
    lm = Model(hf)
    name = "model.layers.1.mlp.down_proj.down.weight"
    assert uses_of(lm.architecture).outside == {name}
    v = Vector({Weight(name): LowRank(torch.ones(32, 1), torch.ones(1, 64))})
    with pytest.raises(CapabilityError, match="used outside its module"):
        lm.steered(v, weights="hook").attach()
    with lm.steered(v, 0.1):
        assert merger_of(hf).names == (name,)


def test_a_real_state_space_model_is_refused_where_it_uses_weights_itself() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf = MambaForCausalLM(
            MambaConfig(vocab_size=128, hidden_size=32, num_hidden_layers=2, state_size=4)
        ).eval()
    lm = Model(hf)
    outside = {n.split(".")[-2] for n in uses_of(lm.architecture).outside}
    assert "conv1d" in outside or "dt_proj" in outside
    v = everywhere(hf, keep=lambda n: "in_proj" in n or "out_proj" in n)
    with torch.no_grad(), lm.steered({"a": v}, 0.75, weights="hook"):
        found = logits(hf)
    close(found, logits(merged(hf, (v, 0.75)).float()))


def test_offloaded_linear_modules_are_displaced_and_offloaded_norms_refused() -> None:
    from accelerate import cpu_offload

    hf = tiny_model("llama")
    linear = everywhere(hf, keep=lambda n: n.endswith("proj.weight"))
    norms = everywhere(hf, keep=lambda n: "norm" in n)
    expected = logits(merged(hf, (linear, 0.75)).float())
    lm = Model(cpu_offload(hf, execution_device=torch.device("cpu")))
    with lm.steered(linear, 0.75, weights="hook"):
        close(logits(hf), expected)
    with pytest.raises(CapabilityError, match="is offloaded"):
        lm.steered(norms, weights="hook").attach()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_a_wrapper_is_displaced_under_the_names_of_the_model_inside() -> None:
    peft: Any = pytest.importorskip("peft", reason="peft is not installed")
    hf = tiny_model("llama")
    v = everywhere(hf, keep=lambda n: "mlp" in n)
    expected = logits(merged(hf, (v, 0.75)).float())
    adapted = peft.get_peft_model(hf, peft.LoraConfig(r=2, target_modules=["q_proj"])).eval()
    lm = Model(adapted)
    with lm.steered(v, 0.75, weights="hook"):
        close(logits(adapted), expected)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize(
    ("options", "name", "inner"),
    [
        ({}, "model.layers.0.self_attn.q_proj.weight", "q_proj.base_layer.weight"),
        ({"modules_to_save": ["lm_head"]}, "lm_head.weight", "lm_head.original_module.weight"),
    ],
)
@pytest.mark.parametrize("way", ["hook", "merge"])
def test_a_weight_that_an_adapter_hides_is_refused_with_what_to_pass(
    options: dict[str, Any], name: str, inner: str, way: Any
) -> None:
    peft: Any = pytest.importorskip("peft", reason="peft is not installed")
    hf = tiny_model("llama")
    v = everywhere(hf, keep=lambda n: n == name)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], **options)
    adapted = peft.get_peft_model(hf, config).eval()
    with pytest.raises(FitError) as caught:
        Model(adapted).steered(v, 0.75, weights=way)
    for part in (inner, "Model(adapted.merge_and_unload(), tokenizer)", "Model(adapted.unload()"):
        assert part in str(caught.value)
    lm = Model(adapted.merge_and_unload())  # what it says works
    plain = logits(lm.hf_model)
    with lm.steered(v, 0.75, weights=way):
        far(logits(lm.hf_model), plain)


def test_a_gate_reads_prompts_under_compositions_that_act_already() -> None:
    lm = Model(tiny_model("llama"), tiny_tokenizer())
    shift = cases.vector(0, size=3.0)
    knobs = cases.mixed(lm, "weights", gate=cases.gate(layer=1))
    with lm.steered(shift):
        streams = [row[0, -1] for row in lm.activations(cases.PROMPTS[:3], layers=[1])]
        expected = cases.gate(layer=1)(torch.stack(streams))
    for order in ((shift, knobs), (knobs, shift)):
        with lm.steered(order[0], 1.0), lm.steered(order[1], 1.0):
            gated = lm.logits(cases.PROMPTS[:3], ["No."] * 3)
        rows = expected.tolist()
        ungated = cases.mixed(lm, "weights")
        with lm.steered(shift), lm.steered(ungated, rows):
            for a, b in zip(gated, lm.logits(cases.PROMPTS[:3], ["No."] * 3), strict=True):
                close(a, b)


def test_factors_of_another_precision_are_used_in_the_models() -> None:
    hf = tiny_model("llama")
    lm = Model(hf)
    v = everywhere(hf)
    with lm.steered(v, 0.75):
        expected = logits(hf)
    with lm.steered(v.to(dtype=torch.float64), 0.75):
        close(logits(hf), expected)


def test_a_model_converted_while_it_is_steered_is_followed() -> None:
    hf = tiny_model("llama")
    v = everywhere(hf, keep=lambda n: "proj" in n or "embed" in n)
    lm = Model(hf)
    with lm.steered({"v": v}, [{"v": 0.75}] * 4):
        hf.double()
        found = logits(hf)
    assert found.dtype == torch.float64
    close(found, logits(merged(hf, (v, 0.75))), 3e-6)
