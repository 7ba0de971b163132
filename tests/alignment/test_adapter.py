"""A LoRA adapter read from its files is what PEFT merges."""

import copy
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

import steer
from steer.algebra import LowRank, Vector, Weight
from steer.algebra._term import dense
from steer.alignment import alignment_vector, write_alignment_vector
from steer.errors import AlignmentError, CheckpointError, MissingExtraError
from tests.alignment.models import saved
from tests.tiny import tiny_model, tiny_tokenizer

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*")  # PEFT's own, of its defaults

QUIET: dict[str, Any] = {"progress": False}
LLAMA = ["q_proj", "down_proj"]


def adapter(model: PreTrainedModel, folder: Path, **options: Any) -> dict[str, torch.Tensor]:
    """Write a random adapter; return what PEFT's own merging changes, by the model's names."""
    wrapped = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(**options))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    wrapped.save_pretrained(folder)
    merged = wrapped.merge_and_unload()
    after = dict(merged.named_parameters())
    found = {n: after[n].detach() - p.detach() for n, p in model.named_parameters()}
    return {name: value for name, value in found.items() if float(value.abs().max()) > 1e-7}


def changed(folder: Path, **entries: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("llama", {"r": 4, "lora_alpha": 16, "target_modules": LLAMA}),
    "rank-stabilised": (
        "llama",
        {"r": 4, "lora_alpha": 16, "target_modules": LLAMA, "use_rslora": True},
    ),
    "patterns": (
        "llama",
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": LLAMA,
            "rank_pattern": {"down_proj": 2, r"layers\.1\.self_attn\.q_proj": 3},
            "alpha_pattern": {r"model.layers.0.mlp.down_proj": 5, "q_proj": 1},
        },
    ),
    "stabilised patterns": (
        "llama",
        {
            "r": 4,
            "target_modules": LLAMA,
            "use_rslora": True,
            "rank_pattern": {"down_proj": 2},
            "alpha_pattern": {"down_proj": 5},
        },
    ),
    "fan_in_fan_out": (
        "gpt2",
        {"r": 3, "target_modules": ["c_attn", "c_fc", "mlp.c_proj"], "fan_in_fan_out": True},
    ),
    "embeddings": ("llama", {"r": 3, "target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "biases": ("gpt2", {"r": 3, "target_modules": ["c_attn"], "bias": "all"}),
    "biases of the adapted": ("opt", {"r": 3, "target_modules": ["q_proj"], "bias": "lora_only"}),
    "whole modules": (
        "llama",
        {"r": 3, "target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]},
    ),
    "layers": ("llama", {"r": 3, "target_modules": LLAMA, "layers_to_transform": [1]}),
    "started otherwise": (
        "llama",
        {"r": 3, "target_modules": LLAMA, "init_lora_weights": "gaussian"},
    ),
    "experts apart": ("mixtral", {"r": 3, "target_modules": ["q_proj", "v_proj"]}),
}


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_is_what_peft_merges(case: str, tmp_path: Path) -> None:
    family, options = CASES[case]
    model = tiny_model(family, layers=2, tie_word_embeddings=False)
    merged = adapter(model, tmp_path, **options)
    vector = alignment_vector(model, tmp_path, **QUIET)
    assert {str(site) for site in vector.sites} == {f"weight:{name}" for name in merged}
    for name, value in merged.items():
        found = dense(vector.terms[Weight(name)])
        assert torch.allclose(found, value, atol=1e-6), name
    factored = [term for term in vector.terms.values() if isinstance(term, LowRank)]
    assert factored
    assert all(term.rank <= 4 for term in factored)


def test_base_and_adapter_on_disk(tmp_path: Path) -> None:
    model = tiny_model("llama", layers=2)
    base = saved(model, tmp_path / "base")
    merged = adapter(model, tmp_path / "adapter", r=4, target_modules=LLAMA)
    out = tmp_path / "v.safetensors"
    table = write_alignment_vector(str(base), str(tmp_path / "adapter"), out, **QUIET)
    vector = Vector.load(out)
    assert len(vector) == len(merged) == len(table.rows)
    assert all(row.rank == 4 for row in table.rows)
    assert vector.provenance.arguments["aligned"] == str(tmp_path / "adapter")


def test_an_adapter_can_be_reduced_and_restricted(tmp_path: Path) -> None:
    model = tiny_model("llama", layers=2)
    adapter(model, tmp_path, r=4, target_modules=LLAMA)
    vector = alignment_vector(model, tmp_path, rank=2, include=["*.0.*"], **QUIET)
    assert len(vector) == 2
    assert all(isinstance(t, LowRank) and t.rank == 2 for t in vector.terms.values())
    whole = alignment_vector(model, tmp_path, include=["*.0.*"], **QUIET)
    assert (vector - whole.truncate(2)).norm() < 1e-3 * whole.norm()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_same_change_at_both_uses_of_tied_weights(family: str, tmp_path: Path) -> None:
    model = tiny_model(family, layers=1, tie_word_embeddings=True)
    modules = {"llama": ["embed_tokens", "lm_head"], "gpt2": ["wte", "lm_head"]}[family]
    adapter(
        model,
        tmp_path,
        r=2,
        target_modules=["q_proj" if family == "llama" else "c_attn"],
        modules_to_save=modules,
        ensure_weight_tying=True,
    )
    vector = alignment_vector(model, tmp_path, **QUIET)
    names = [str(site) for site in vector.sites]
    assert len([n for n in names if "embed_tokens" in n or "wte" in n]) == 1
    assert not [n for n in names if "lm_head" in n]


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["lm_head"]},
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
)
def test_a_change_at_one_use_of_tied_weights_is_refused(
    options: dict[str, Any], tmp_path: Path
) -> None:
    model = tiny_model("llama", layers=1, tie_word_embeddings=True)
    adapter(model, tmp_path, r=2, **options)
    with pytest.raises(AlignmentError, match="at one of its uses"):
        alignment_vector(model, tmp_path, **QUIET)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"use_dora": True}, "use_dora = True"),
        ({"trainable_token_indices": [3, 4]}, "trainable_token_indices"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
    ],
)
def test_other_kinds_of_lora_are_refused_by_name(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    model = tiny_model("llama", layers=1)
    adapter(model, tmp_path, r=2, target_modules=LLAMA, **options)
    with pytest.raises(AlignmentError, match=words):
        alignment_vector(model, tmp_path, **QUIET)


def test_lora_of_fused_experts_is_refused_by_name(tmp_path: Path) -> None:
    model = tiny_model("mixtral", layers=1)
    adapter(
        model, tmp_path, r=2, target_modules=["q_proj"], target_parameters=["experts.gate_up_proj"]
    )
    with pytest.raises(AlignmentError, match="target_parameters"):
        alignment_vector(model, tmp_path, **QUIET)


def test_other_methods_of_peft_are_refused_by_name(tmp_path: Path) -> None:
    model = tiny_model("llama", layers=1)
    config = peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[])
    peft.get_peft_model(copy.deepcopy(model), config).save_pretrained(tmp_path)
    with pytest.raises(AlignmentError, match="peft_type 'IA3'"):
        alignment_vector(model, tmp_path, **QUIET)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"r": 5}, "rank 4"),
        ({"lora_bias": True}, "lora_bias = True"),
        ({"a_new_option": True}, "a_new_option = True"),
        ({"lora_alpha": None}, "the configuration that PEFT writes"),
        ({"peft_type": None}, "peft_type None"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    entries: dict[str, Any], words: str, tmp_path: Path
) -> None:
    model = tiny_model("llama", layers=1)
    adapter(model, tmp_path, r=4, target_modules=LLAMA)
    changed(tmp_path, **entries)
    with pytest.raises(AlignmentError, match=words):
        alignment_vector(model, tmp_path, **QUIET)


def _rewrite(folder: Path, **tensors: torch.Tensor | None) -> None:
    path = folder / "adapter_model.safetensors"
    known = load_file(path)
    for name, value in tensors.items():
        known.pop(name, None)
        if value is not None:
            known[name] = value
    save_file(known, path)


Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({f"{Q}.lora_A.weight": None}, "no factor A"),
        ({f"{Q}.lora_B.weight": None}, "no factor B"),
        ({f"{Q}.lora_A.weight": torch.ones(4, 33)}, r"product of shape \(32, 32\)"),
        ({f"{Q}.lora_B.weight": torch.full((32, 4), torch.nan)}, "not finite"),
        ({f"{Q}.lora_magnitude_vector": torch.ones(32)}, "no such parameter"),
        ({"model.layers.0.other.weight": torch.ones(2)}, "no such parameter"),
        ({"base_model.model.model.norm.weight": torch.ones(2)}, r"shape \(32,\), as in the base"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    tensors: dict[str, Any], words: str, tmp_path: Path
) -> None:
    model = tiny_model("llama", layers=1)
    adapter(model, tmp_path, r=4, target_modules=LLAMA)
    _rewrite(tmp_path, **tensors)
    with pytest.raises(AlignmentError, match=words):
        alignment_vector(model, tmp_path, **QUIET)


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    adapter(tiny_model("llama", layers=2), tmp_path, r=4, target_modules=LLAMA)
    with pytest.raises(AlignmentError, match="does not fit"):
        alignment_vector(tiny_model("gpt2"), tmp_path, **QUIET)
    with pytest.raises(AlignmentError, match="does not fit"):
        alignment_vector(tiny_model("llama", layers=1), tmp_path, **QUIET)


def test_a_pickled_adapter_is_refused(tmp_path: Path) -> None:
    model = tiny_model("llama", layers=1)
    adapter(model, tmp_path, r=4, target_modules=LLAMA)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors"):
        alignment_vector(model, tmp_path, **QUIET)


def test_an_adapter_s_tokenizer_is_compared(tmp_path: Path) -> None:
    model = tiny_model("llama", layers=1)
    adapter(model, tmp_path, r=4, target_modules=LLAMA)
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    lm = steer.Model(model, tiny_tokenizer())
    alignment_vector(lm, tmp_path, **QUIET)
    tokenizer.chat_template += "!"
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(AlignmentError, match="the chat template differs"):
        alignment_vector(lm, tmp_path, **QUIET)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        alignment_vector(lm, tmp_path, strict=False, **QUIET)
    assert "the chat template differs" in str(caught[0].message)


def test_a_model_inside_an_adapter_and_an_adapter_as_base_are_refused(tmp_path: Path) -> None:
    model = tiny_model("llama", layers=1)
    adapter(model, tmp_path, r=4, target_modules=LLAMA)
    wrapped = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(target_modules=LLAMA))
    with pytest.raises(AlignmentError, match="inside a PEFT adapter"):
        alignment_vector(model, wrapped, **QUIET)
    with pytest.raises(AlignmentError, match="the base is an adapter"):
        alignment_vector(tmp_path, model, **QUIET)


def test_an_adapter_without_its_safetensors_file_says_so(tmp_path: Path) -> None:
    model = tiny_model("llama")
    adapter(model, tmp_path, r=2, target_modules=LLAMA)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="are missing") as caught:
        alignment_vector(steer.Model(model, tiny_tokenizer()), tmp_path, **QUIET)
    assert "adapter_model.bin" in caught.value.found


def test_without_peft_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama", layers=1)
    adapter(model, tmp_path, r=2, target_modules=LLAMA)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"residual-steer\[tune\]"):
        alignment_vector(model, tmp_path, **QUIET)
