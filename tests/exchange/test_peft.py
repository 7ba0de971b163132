"""PEFT adapters: PEFT computes with them what steering with the vector computes."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import steer
from steer.algebra import LowRank, Vector, Weight
from steer.errors import ArgumentError, CapabilityError, VectorFileError
from steer.exchange import read, write
from tests.alignment.models import saved
from tests.tiny import tiny_model, tiny_tokenizer

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*")  # PEFT's own, of its defaults

IDS = torch.arange(3, 23).reshape(2, 10)
NAMES = {
    "llama": ["model.layers.0.mlp.down_proj", "model.layers.1.self_attn.q_proj", "lm_head"],
    "gpt2": ["transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_proj", "transformer.wpe"],
    "tied": ["model.embed_tokens", "model.layers.1.mlp.up_proj"],
}


def base(family: str, folder: Path) -> Path:
    options = {"tie_word_embeddings": True} if family == "tied" else {}
    name = "llama" if family == "tied" else family
    return saved(tiny_model(name, layers=2, **options), folder)


def low_rank(family: str, folder: Path, seed: int = 0, rank: int = 2) -> Vector:
    """A random vector of the family's modules; the rank grows from one to the next."""
    shapes = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())
    generator = torch.Generator().manual_seed(seed)
    terms = {}
    for more, module in enumerate(NAMES[family]):
        out, into = shapes[f"{module}.weight"].shape
        sizes = ((out, rank + more), (rank + more, into))
        B, A = (0.2 * torch.randn(size, generator=generator) for size in sizes)
        terms[Weight(f"{module}.weight")] = LowRank(B, A)
    return Vector(terms)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
        return found


@pytest.mark.parametrize("family", NAMES)
def test_peft_adds_what_is_written(family: str, tmp_path: Path) -> None:
    folder = base(family, tmp_path / "base")
    setting = steer.compose(a=low_rank(family, folder), b=low_rank(family, folder, seed=1, rank=3))(
        a=0.75, b=-1.5
    )
    write(setting, tmp_path / "adapter", "peft", base=folder)
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    lm = steer.Model(AutoModelForCausalLM.from_pretrained(folder).eval(), tiny_tokenizer())
    with lm.steered(setting, strict=False):
        wanted = logits(lm.hf_model)
    found = logits(peft.PeftModel.from_pretrained(plain, tmp_path / "adapter").eval())
    moved = (wanted - logits(AutoModelForCausalLM.from_pretrained(folder).eval())).norm()
    assert float((found - wanted).norm() / moved) < 1e-4  # float32 through a few blocks


@pytest.mark.parametrize("family", NAMES)
def test_an_adapter_is_read_as_it_was_written(family: str, tmp_path: Path) -> None:
    folder = base(family, tmp_path / "base")
    vector = low_rank(family, folder)
    write(vector, tmp_path / "adapter", "peft", base=folder)
    found = read(tmp_path / "adapter", "peft", base=folder, domain="medical")
    assert found.sites == vector.sites
    for site, term in vector.terms.items():
        kept = found.terms[site]
        assert isinstance(term, LowRank)
        assert isinstance(kept, LowRank)
        assert kept.rank == max(t.rank for t in vector.terms.values() if isinstance(t, LowRank))
        assert torch.equal(kept.B[:, : term.rank], term.B)
        assert torch.equal(kept.A[: term.rank], term.A)
        assert not kept.B[:, term.rank :].any()
    assert found.provenance.model is not None
    assert found.provenance.domain == "medical"


def test_the_configuration_needs_no_rank_by_module(tmp_path: Path) -> None:
    folder = base("llama", tmp_path / "base")
    write(low_rank("llama", folder), tmp_path / "adapter", "peft", base=folder)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 4)
    assert config["target_modules"] == sorted(NAMES["llama"])
    assert not {"rank_pattern", "alpha_pattern", "use_rslora"} & set(config)


def test_what_is_no_module_of_the_base_is_refused(tmp_path: Path) -> None:
    folder = base("llama", tmp_path / "base")
    foreign = Vector({Weight("x.weight"): LowRank(torch.ones(4, 1), torch.ones(1, 4))})
    with pytest.raises(CapabilityError, match="cannot carry this"):
        write(foreign, tmp_path / "adapter", "peft", base=folder)
    with pytest.raises(ArgumentError, match="needs an option"):
        write(foreign, tmp_path / "adapter", "peft")


def test_a_folder_in_use_is_not_replaced(tmp_path: Path) -> None:
    folder = base("llama", tmp_path / "base")
    before = sorted(folder.iterdir())
    with pytest.raises(VectorFileError):
        write(low_rank("llama", folder), folder, "peft", base=folder)
    assert sorted(folder.iterdir()) == before


def test_an_adapter_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = base("llama", tmp_path / "base")
    write(low_rank("llama", folder), tmp_path / "adapter", "peft", base=folder)
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_dora": True}))
    with pytest.raises(VectorFileError, match="this adapter is not supported"):
        read(tmp_path / "adapter", "peft", base=folder)


def test_factors_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    folder, name = base("llama", tmp_path / "base"), "model.layers.0.mlp.down_proj.weight"
    term = low_rank("llama", folder).terms[Weight(name)]
    assert isinstance(term, LowRank)
    half = Vector({Weight(name): LowRank(torch.full_like(term.B, 6e4).half(), term.A.half())})
    with pytest.raises(CapabilityError, match="NaN or infinity"):
        write(steer.compose(a=half)(a=4.0), tmp_path / "adapter", "peft", base=folder)
    assert not (tmp_path / "adapter").exists()
