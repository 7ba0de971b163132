import pytest
import torch
from torch import Tensor, nn

from steer.network import Architecture, block_output, find_architecture
from tests.tiny import FAMILIES, tiny_model, tiny_vlm

# family -> body, blocks, final norm
PLACES = {
    "gpt2": ("transformer", "transformer.h", "transformer.ln_f"),
    "gpt_neox": ("gpt_neox", "gpt_neox.layers", "gpt_neox.final_layer_norm"),
    "opt": ("model.decoder", "model.decoder.layers", "model.decoder.final_layer_norm"),
    "falcon": ("transformer", "transformer.h", "transformer.ln_f"),
}
USUAL = ("model", "model.layers", "model.norm")
IDS = torch.tensor([[3, 50, 7, 99, 20], [11, 12, 64, 30, 31]])


def last_block_and_logits(architecture: Architecture) -> tuple[Tensor, Tensor]:
    seen: list[Tensor] = []
    last = architecture.blocks[-1]
    handle = last.register_forward_hook(lambda _m, _i, out: seen.append(block_output(out)))
    with torch.no_grad():
        logits = architecture.model(input_ids=IDS).logits
    handle.remove()
    return seen[0], logits


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_of_every_family(family: str) -> None:
    model = tiny_model(family, layers=3, width=40, vocab=112)
    found = find_architecture(model)
    body, blocks, norm = PLACES.get(family, USUAL)
    assert (found.n_layers, found.d_model, found.vocab) == (3, 40, 112)
    assert found.names["body"] == body
    assert found.names["blocks"] == blocks
    assert found.names["final_norm"] == norm
    assert found.model is model
    assert found.body is model.get_submodule(body)
    assert found.blocks == tuple(model.get_submodule(blocks))
    assert found.final_norm is model.get_submodule(norm)
    assert found.embedding is model.get_input_embeddings()
    assert found.unembedding is model.get_output_embeddings()


@pytest.mark.parametrize("family", FAMILIES)
def test_unembed_gives_the_models_logits(family: str) -> None:
    found = find_architecture(tiny_model(family))
    h, logits = last_block_and_logits(found)
    with torch.no_grad():
        torch.testing.assert_close(found.unembed(h), logits)
        torch.testing.assert_close(found.unembed(h[1, 2]), logits[1, 2])


@pytest.mark.parametrize("family", FAMILIES)
def test_body_alone_runs_the_same_blocks(family: str) -> None:
    found = find_architecture(tiny_model(family))
    h, _ = last_block_and_logits(found)
    seen: list[Tensor] = []
    found.blocks[-1].register_forward_hook(lambda _m, _i, out: seen.append(block_output(out)))
    with torch.no_grad():
        found.body(input_ids=IDS, use_cache=False)
    assert torch.equal(seen[0], h)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_verified_in_half_precision(family: str, dtype: torch.dtype) -> None:
    assert find_architecture(tiny_model(family, dtype=dtype)).n_layers == 4


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_verified_in_float64(family: str) -> None:
    assert find_architecture(tiny_model(family, dtype=torch.float64)).n_layers == 4


@pytest.mark.parametrize("layers", [1, 3, 6])
def test_vision_blocks_are_not_taken_whatever_their_number(layers: int) -> None:
    model = tiny_vlm(layers=layers, vision_layers=6)
    found = find_architecture(model)
    assert found.names["blocks"] == "model.language_model.layers"
    assert found.blocks == tuple(model.model.language_model.layers)
    assert found.body is model.model.language_model
    h, logits = last_block_and_logits(found)
    with torch.no_grad():
        torch.testing.assert_close(found.unembed(h), logits)


def test_narrow_embeddings_of_opt_350m() -> None:
    sizes = {"word_embed_proj_dim": 16, "do_layer_norm_before": False}
    found = find_architecture(tiny_model("opt", **sizes))
    assert found.names["final_norm"] == "none"
    assert isinstance(found.final_norm, nn.Identity)
    assert found.names["projection"] == "model.decoder.project_out"
    h, logits = last_block_and_logits(found)
    assert h.shape[-1] == 32
    with torch.no_grad():
        torch.testing.assert_close(found.unembed(h), logits)


def test_projection_after_the_norm_of_opt() -> None:
    found = find_architecture(tiny_model("opt", word_embed_proj_dim=16))
    assert found.names["final_norm"] == "model.decoder.final_layer_norm"
    assert found.names["projection"] == "model.decoder.project_out"


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_tied_and_untied_weights(family: str, tied: bool) -> None:
    model = tiny_model(family, tie_word_embeddings=tied)
    found = find_architecture(model)
    assert (found.embedding.weight is found.unembedding.weight) == tied


def test_soft_cap_is_part_of_unembed() -> None:
    model = tiny_model("gemma2", final_logit_softcapping=0.5)
    found = find_architecture(model)
    h, logits = last_block_and_logits(found)
    with torch.no_grad():
        bare = found.unembedding(found.final_norm(h))
        torch.testing.assert_close(found.unembed(h), logits)
    assert bare.abs().max() > 1
    assert logits.abs().max() <= 0.5


def test_printed_form_names_every_part() -> None:
    found = find_architecture(tiny_model("gemma2"))
    text = repr(found)
    assert "Gemma2ForCausalLM: 4 layers × 32, vocabulary 128" in text
    assert "4 × Gemma2DecoderLayer" in text
    assert "cap 30 (final_logit_softcapping)" in text
    for name in found.names.values():
        assert name in text
    assert len(text.splitlines()) <= 9


def test_architecture_is_frozen() -> None:
    found = find_architecture(tiny_model("llama"))
    with pytest.raises(AttributeError):
        found.n_layers = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        found.names["blocks"] = "elsewhere"  # type: ignore[index]
