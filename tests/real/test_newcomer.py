"""What people meet first with a real model: its GGUF file, a cheap gate, cards and messages."""

import os
from pathlib import Path

import pytest
import torch

import steer
from steer.alignment import preference_tune
from steer.demo import smollm2
from steer.errors import CompositionError
from tests.real.data import QUESTIONS, pairs


def test_the_gguf_file_is_the_model_and_its_tokenizer(lm: steer.Model) -> None:
    override = os.environ.get(smollm2.OVERRIDE)
    if override and Path(override).is_dir():
        pytest.skip(f"{smollm2.OVERRIDE} names a folder and no GGUF file")
    source = Path(override) if override else smollm2.gguf_path()
    found = steer.Model.from_pretrained(source, device="cpu")
    assert found.info.model_id == str(source)
    assert found.info.tokenizer == lm.info.tokenizer
    assert found.info.template == lm.info.template
    asked = QUESTIONS[:2]
    assert found.generate(asked, max_new_tokens=8) == lm.generate(asked, max_new_tokens=8)


def test_a_gate_at_a_low_layer_runs_the_blocks_up_to_it_alone(lm: steer.Model) -> None:
    called: set[int] = set()
    handles = [
        block.register_forward_pre_hook(lambda *_, layer=layer: called.add(layer))
        for layer, block in enumerate(lm.architecture.blocks)
    ]
    prompts = {"cooking": ["How do I boil an egg?"], "law": ["Can my landlord raise the rent?"]}
    try:
        gate = steer.domain_gate(lm, prompts, layer=4, held_out=prompts, progress=False)
    finally:
        for handle in handles:
            handle.remove()
    assert called == set(range(5))
    assert gate.accuracy == 1.0


def test_layers_of_steered_are_said_to_be_the_vectors(lm: steer.Model) -> None:
    vector = steer.Vector.of({16: torch.ones(lm.d_model), 17: torch.ones(lm.d_model)})
    with pytest.raises(CompositionError, match=r"layers=\[16\][\s\S]*vector\[16\]"):
        lm.steered(vector, 1.0, layers=[16])


def test_the_card_of_an_alignment_vector_shows_norms_and_both_models(lm: steer.Model) -> None:
    tuned = preference_tune(lm, pairs()[:4], steps=1, batch_size=2, progress=False)
    vector = steer.alignment_vector(lm, tuned, progress=False)
    made = vector.provenance.arguments
    assert made["base"] == lm.info.model_id
    assert made["aligned"] == f"{lm.info.model_id} tuned with ipo on 4 pairs"
    card = repr(vector)
    exact = sum(float(t.W.double().square().sum()) for t in vector.terms.values()) ** 0.5
    assert f"norm {exact:.4g}" in card
    assert "nan" not in card
    assert all(f" {kind} " in card for kind in ("mlp.down_proj", "self_attn.q_proj"))
