"""Weight sites by hook against merging in float64, by kind of module."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steer import Dense, LowRank, Model, Vector, Weight
from steer.algebra import Term
from steer.errors import FitError, SteerError
from tests.conformance.cases import Snapshot, close, far, same_bits
from tests.engine.weight_sites import (
    bound,
    family_model,
    like_merging,
    logits,
    plan_of,
    untied,
)
from tests.tiny import FAMILIES, tiny_model
from tests.weights import everywhere, merged


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
