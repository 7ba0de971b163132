"""Weight sites by hook against merging in float64, by kind of module; what is merged or refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steer import Dense, LowRank, Model, Vector, Weight, compose
from steer.algebra import Term
from steer.engine._weights import plan as planning
from steer.engine._weights.plan import Plan
from steer.engine._weights.uses import uses_of
from steer.errors import CapabilityError, FitError, SteerError
from steer.merge import merger_of
from tests.conformance import cases
from tests.conformance.cases import Snapshot, close, far, same_bits
from tests.tiny import FAMILIES, MIXTURES, tiny_model, tiny_tokenizer
from tests.weights import everywhere, merged

IDS = torch.tensor(cases.sequences([(9, 0)] * 4))
ROWS = [{"a": 1.0}, {}, {"a": -0.5, "b": 0.25}, {"b": 2.0}]
EXACT = ("gpt2", "gpt_neox", "opt", "falcon")  # no norm that computes in float32 by itself


def family_model(family: str, **sizes: Any) -> Any:
    """One in float64, in which fused experts do not run."""
    dtype = torch.float32 if family in MIXTURES else torch.float64
    return tiny_model(family, dtype=dtype, **sizes)


def bound(family: str) -> float:
    return 1e-5 if family in MIXTURES else 1e-12 if family in EXACT else 3e-6


def logits(hf: Any) -> Tensor:
    with torch.no_grad():
        return hf(IDS).logits  # type: ignore[no-any-return]


def plan_of(lm: Model, vector: Vector, way: Any = "hook") -> Plan:
    return planning.plan(compose(v=vector), lm.architecture, way)


def like_merging(hf: Any, vectors: dict[str, Vector], bound: float) -> None:
    """Fail unless one setting and rows give what merging in full precision gives."""
    lm = Model(hf)
    plain = logits(hf)
    one = dict.fromkeys(vectors, 0.75)
    with lm.steered(vectors, one, weights="hook"):
        found = logits(hf)
    dtype = plain.dtype
    expected = logits(merged(hf, *((v, 0.75) for v in vectors.values())).to(dtype))
    close(found, expected, bound)
    assert cases.distance(found, plain) > 10 * bound
    rows = [{k: c for k, c in row.items() if k in vectors} for row in ROWS]
    with lm.steered(vectors, rows, weights="hook"):
        found = logits(hf)
    for r, row in enumerate(rows):
        added = [(v, row.get(name, 0.0)) for name, v in vectors.items()]
        close(found[r], logits(merged(hf, *added).to(dtype))[r], bound)
    cases.idle(hf.config.model_type, found[1], plain[1])
    assert same_bits(logits(hf), plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_at_once_equals_merging(family: str) -> None:
    hf = family_model(family)
    vectors = {"a": everywhere(hf, seed=1, size=0.2), "b": everywhere(hf, seed=2, size=0.2)}
    like_merging(hf, vectors, bound(family))


FORMS: dict[str, tuple[str, str, dict[str, int]]] = {
    "linear": ("llama", "q_proj.weight", {"linear": 4}),
    "a bias of a linear module": ("qwen2", "q_proj.bias", {"added": 4}),
    "Conv1D": ("gpt2", "c_fc.weight", {"transposed": 4}),
    "a square Conv1D": ("gpt2", "attn.c_proj.weight", {"transposed": 4}),
    "a bias of Conv1D": ("gpt2", "c_fc.bias", {"added": 4}),
    "a linear class of its own": ("falcon", "dense.weight", {"linear": 4}),
    "embedding": ("llama", "embed_tokens.weight", {"lookup": 1}),
    "scaled embedding, tied": ("gemma2", "embed_tokens.weight", {"lookup": 1, "linear": 1}),
    "tied embedding": ("gpt2", "wte.weight", {"lookup": 1, "linear": 1}),
    "positions": ("gpt2", "wpe.weight", {"lookup": 1}),
    "positions with an offset": ("opt", "embed_positions.weight", {"lookup": 1}),
    "unembedding": ("llama", "lm_head.weight", {"linear": 1}),
    "norm": ("llama", "input_layernorm.weight", {"elementwise": 4}),
    "norm of 1 + w": ("gemma3", "input_layernorm.weight", {"elementwise": 4}),
    "norm of heads": ("qwen3", "q_norm.weight", {"elementwise": 4}),
    "norm of heads, before tokens": ("gemma3", "k_norm.weight", {"elementwise": 4}),
    "layer norm": ("gpt_neox", "input_layernorm.weight", {"elementwise": 4}),
    "bias of a layer norm": ("gpt_neox", "input_layernorm.bias", {"added": 4}),
}


@pytest.mark.parametrize("case", FORMS)
def test_one_kind_of_module_equals_merging(case: str) -> None:
    family, part, forms = FORMS[case]
    hf = family_model(family)
    vectors = {
        name: everywhere(hf, seed, keep=lambda n: part in n) for seed, name in ((1, "a"), (2, "b"))
    }
    units = plan_of(Model(hf), vectors["a"]).units
    assert {form: [u.form for u in units].count(form) for form in forms} == forms
    assert len(units) == sum(forms.values())
    like_merging(hf, vectors, bound(family))


def untied(hf: Any, name: str, seed: int) -> Vector:
    """A dense displacement of one matrix."""
    shape = dict(hf.named_parameters())[name].shape
    return Vector({Weight(name): Dense(0.1 * torch.randn(shape, generator=cases.generator(seed)))})


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("llama", "model.embed_tokens.weight"),
        ("gemma2", "model.embed_tokens.weight"),
        ("gpt2", "transformer.wpe.weight"),
        ("opt", "model.decoder.embed_positions.weight"),
    ],
)
def test_dense_tables_equal_merging(family: str, name: str) -> None:
    sizes = {"tie_word_embeddings": False} if family == "gemma2" else {}
    hf = family_model(family, **sizes)
    table = everywhere(hf, 2, keep=lambda n: n == name)
    like_merging(hf, {"a": untied(hf, name, 1), "b": table}, bound(family))


def test_an_idle_row_keeps_what_zero_times_the_displacement_would_not() -> None:
    """0 · ∞ is no number, and −0.0 + 0.0 is 0.0: an idle row is selected, not added to."""
    hf = tiny_model("llama")
    table = "model.embed_tokens.weight"
    with torch.no_grad():
        hf.get_parameter(table)[:, ::2] = -0.0
    lm = Model(hf)
    huge = everywhere(hf, size=1e38, keep=lambda n: "q_proj" in n or "norm" in n)
    seen: list[Tensor] = []
    hf.get_input_embeddings().register_forward_hook(lambda _m, _a, out: seen.append(out))
    before = logits(hf)
    both = {"a": huge, "b": everywhere(hf, keep=lambda n: n == table)}
    seen.clear()
    logits(hf)
    with lm.steered(both, [{"a": 1.0, "b": 1.0}, {}] * 2):
        found = logits(hf)
    assert not found[0].isfinite().all()
    assert same_bits(found[1], before[1])
    assert same_bits(seen[-1][1], seen[0][1])
    assert bool((seen[0][1] == 0).any())
    assert not same_bits(seen[-1][0], seen[0][0])


def test_modules_that_read_one_tensor_share_their_product() -> None:
    lm = Model(tiny_model("llama"))
    units = plan_of(lm, everywhere(lm.hf_model, keep=lambda n: "layers.0." in n)).units
    readers: dict[int, int] = {}
    for unit in units:
        if unit.form == "linear":
            readers[unit.reader] = readers.get(unit.reader, 0) + 1
    assert sorted(readers.values()) == [1, 1, 2, 3]  # output, down; gate and up; q, k, v


# -- quantised modules ---------------------------------------------------------------------------


class Int8Linear(nn.Module):
    """A linear module that holds integers and a scale per output, as buffers."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale = linear.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("values", (linear.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def dequantised(self) -> Tensor:
        return self.values.to(self.scale) * self.scale  # type: ignore[operator, union-attr]

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.dequantised())


def quantised(**sizes: Any) -> Any:
    hf = tiny_model("llama", **sizes)
    for module in list(hf.model.layers.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child))
    return hf


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_quantised_base_is_displaced_without_being_changed(dtype: torch.dtype) -> None:
    hf = quantised(dtype=dtype)
    full = tiny_model("llama")
    names = [n for n, p in full.named_parameters() if "layers" in n and p.ndim == 2]
    with torch.no_grad():
        for name in names:
            owner = hf.get_submodule(name.removesuffix(".weight"))
            full.get_parameter(name).copy_(owner.dequantised())
        for name, p in hf.named_parameters():
            full.get_parameter(name).copy_(p)
    v = everywhere(full, keep=lambda n: n in names)
    assert set(names).isdisjoint(dict(hf.named_parameters()))
    lm = Model(hf)
    plain, before = logits(hf), Snapshot(hf)
    with lm.steered({"a": v}, 0.75):
        found = logits(hf)
    close(
        found.float(),
        logits(merged(full, (v, 0.75)).float()),
        1e-5 if dtype == torch.float32 else 0.1,
    )
    far(found, plain)
    with lm.steered({"a": v}, [{"a": 0.75}, {}, {"a": -0.5}, {}]):
        assert same_bits(logits(hf)[1], plain[1])
    before.check(hf)


def test_nested_settings_fit_a_quantised_base_as_they_do_alone() -> None:
    hf = quantised()
    lm = Model(hf)
    full = tiny_model("llama")
    v, w = (everywhere(full, seed, keep=lambda n: "up_proj" in n) for seed in (1, 2))
    with lm.steered({"v": v, "w": w}, [{"v": 0.5, "w": 0.25}] * 4):
        expected = logits(hf)
    with lm.steered({"v": v}, [{"v": 0.5}] * 4), lm.steered({"w": w}, [{"w": 0.25}] * 4):
        close(logits(hf), expected)
    far(logits(hf), expected)


def test_a_term_of_another_shape_does_not_fit_a_quantised_module() -> None:
    lm = Model(quantised())
    name = "model.layers.0.mlp.up_proj.weight"
    wrong = Vector({Weight(name): LowRank(torch.ones(32, 1), torch.ones(1, 64))})
    with pytest.raises(FitError, match="does not fit this model's weights"):
        lm.steered(wrong)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("way", ["auto", "hook", "merge"])
def test_a_weight_term_that_is_not_finite_is_refused(bad: float, way: Any) -> None:
    lm = Model(tiny_model("llama"))
    before = Snapshot(lm.hf_model)
    B = torch.ones(64, 2)
    B[3, 1] = bad
    gain = torch.ones(32)
    gain[5] = bad
    terms: dict[str, Term] = {
        "model.layers.1.mlp.up_proj.weight": LowRank(B, torch.ones(2, 32)),
        "model.layers.1.input_layernorm.weight": Dense(gain),
    }
    for name, term in terms.items():
        with pytest.raises(SteerError, match=r"not finite|no finite|infinite|NaN"):
            lm.steered(Vector({Weight(name): term}), 0.5, weights=way).attach()
    before.check(lm.hf_model)


# -- merged, or refused --------------------------------------------------------------------------

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
