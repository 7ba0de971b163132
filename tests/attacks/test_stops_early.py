"""What reads a low layer does not pay for the layers above it."""

from contextlib import contextmanager

import pytest
import torch

import steer
from steer.extract import routing_accuracy
from tests.tiny import tiny_model, tiny_tokenizer

SEA = ["the sea is wide", "the sea is deep", "the sea was calm"]
TOWN = ["a b c d e f", "a b c d g h", "a b c d i j"]
PROMPTS = {"sea": SEA, "town": TOWN}


@pytest.fixture(scope="module")
def lm():
    return steer.Model(tiny_model("llama", layers=6), tiny_tokenizer())


@contextmanager
def blocks_run(lm):
    """Collect the layers whose blocks are called, in their order."""
    called: list[int] = []
    handles = [
        block.register_forward_pre_hook(lambda *_, layer=layer: called.append(layer))
        for layer, block in enumerate(lm.architecture.blocks)
    ]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()


def fit(lm, layer):
    steer.domain_gate(lm, PROMPTS, layer=layer, held_out=PROMPTS, background=["hello"])


def read(lm, layer):
    gate = steer.DomainGate(("sea",), torch.ones(2, lm.d_model), layer)
    routing_accuracy(lm, gate, {"sea": SEA})


def capture(lm, layer):
    lm.activations(SEA, layers=[-1, layer])


def answers(lm, layer):
    lm.activations(SEA, TOWN, layers=[layer])


@pytest.mark.parametrize("doing", [fit, read, capture, answers])
@pytest.mark.parametrize("layer", [-1, 0, 2, 5])
def test_the_forward_stops_at_the_last_layer_that_is_read(lm, doing, layer):
    with blocks_run(lm) as called:
        doing(lm, layer)
    assert max(called, default=-1) == max(layer, 0)  # block 0 is entered to read what enters it


@pytest.mark.parametrize("layer", [-1, 0, 2, 5])
def test_what_is_read_is_what_a_whole_forward_gives(lm, layer):
    for alone, all_ in zip(
        lm.activations(SEA, layers=[layer]),
        lm.activations(SEA, layers=range(-1, 6)),
        strict=True,
    ):
        assert torch.equal(alone[0], all_[layer + 1])


def test_a_steered_stream_is_read_after_the_steering_where_the_forward_stops(lm):
    vector = steer.Vector.of({2: torch.ones(lm.d_model)})
    plain = lm.activations(SEA, layers=[2])
    with lm.steered(vector, 0.5):
        for steered, before in zip(lm.activations(SEA, layers=[2]), plain, strict=True):
            assert torch.allclose(steered, before + 0.5, atol=1e-6)


def test_a_gate_ahead_of_weights_runs_its_own_reading_to_its_layer_alone(lm):
    name = "model.layers.0.mlp.down_proj.weight"
    shape = lm.hf_model.get_parameter(name).shape
    low = steer.LowRank(torch.ones(shape[0], 1), torch.ones(1, shape[1]))
    gate = steer.domain_gate(lm, PROMPTS, layer=2)
    knobs = steer.compose(sea=steer.Vector({steer.Weight(name): low}), gate=gate)
    with lm.steered(knobs, 0.1), blocks_run(lm) as called:
        lm.activations(SEA, layers=[4])
    assert called == [0, 1, 2, 0, 1, 2, 3, 4]


def test_logits_still_run_every_block(lm):
    with blocks_run(lm) as called:
        lm.logprobs(SEA, TOWN)
    assert called == list(range(6))
