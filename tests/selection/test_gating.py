"""Fitting the domain gate and measuring its routing."""

import pytest
import torch

import steer
from steer.errors import ArgumentError, CompositionError, SteeringError
from steer.extract import routing_accuracy
from steer.extract._gating import last_prompt_activations
from tests.tiny import tiny_model, tiny_tokenizer

SEA = ["the sea is wide", "the sea is deep", "the sea was calm"]
TOWN = ["a b c d e f", "a b c d g h", "a b c d i j"]


@pytest.fixture(scope="module")
def lm():
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


def test_centroids_are_the_means_of_the_last_prompt_token(lm):
    gate = steer.domain_gate(lm, {"sea": SEA, "town": TOWN}, layer=1)
    for row, prompts in zip(gate.centroids, (SEA, TOWN), strict=True):
        each = [lm.activations([p], layers=[1])[0][0, -1] for p in prompts]
        assert torch.allclose(row, torch.stack(each).mean(dim=0), atol=1e-5)


def test_accuracy_counts_prompts_that_open_their_domain_alone(lm):
    gate = steer.domain_gate(lm, {"sea": SEA, "town": TOWN}, layer=1)
    x = last_prompt_activations(lm, SEA + TOWN, 1)
    distances = torch.cdist(x, gate.centroids.double())
    right = distances.argmin(dim=1) == torch.tensor([0, 0, 0, 1, 1, 1])
    held_out = {"sea": SEA, "town": TOWN}
    assert routing_accuracy(lm, gate, held_out) == pytest.approx(float(right.double().mean()))
    wide = steer.domain_gate(lm, held_out, layer=1, margin=1e6, held_out=held_out)
    assert wide.accuracy == 0.0  # both open for every prompt


def test_a_background_closes_the_gate(lm):
    gate = steer.domain_gate(lm, {"sea": SEA}, layer=1, background=TOWN)
    opened = gate(last_prompt_activations(lm, SEA + TOWN, 1))[:, 0].tolist()
    assert opened == [1, 1, 1, 0, 0, 0]


def test_pairs_bring_their_domains(lm):
    pairs = steer.Pairs.of(
        steer.Pair(p, "x", "y", d) for d, ps in (("sea", SEA), ("town", TOWN)) for p in ps
    )
    by_pairs = steer.domain_gate(lm, pairs, layer=0)
    by_name = steer.domain_gate(lm, {"sea": SEA, "town": TOWN}, layer=0)
    assert by_pairs.domains == by_name.domains
    assert torch.equal(by_pairs.centroids, by_name.centroids)


@pytest.mark.parametrize("prompts", [{}, {"sea": []}])
def test_a_gate_needs_prompts(lm, prompts):
    with pytest.raises(CompositionError, match="prompts of every domain"):
        steer.domain_gate(lm, prompts, layer=0)


@pytest.mark.parametrize("layer", [-2, 4, 99, "1", None, 1.5])
def test_a_gate_needs_a_layer_that_is_there(lm, layer):
    with pytest.raises(ArgumentError, match="layer must be an integer"):
        steer.domain_gate(lm, {"sea": ["the sea"]}, layer=layer)


@pytest.mark.parametrize("margin", ["wide", None, -1.0, float("nan")])
def test_a_margin_is_a_number(lm, margin):
    with pytest.raises(ArgumentError, match="margin"):
        steer.domain_gate(lm, {"sea": SEA, "town": TOWN}, layer=1, margin=margin)


def test_a_gate_of_one_domain_is_refused_but_for_a_background(lm):
    with pytest.raises(CompositionError, match="nothing to choose between"):
        steer.domain_gate(lm, {"sea": SEA}, layer=1)
    gate = steer.domain_gate(lm, {"sea": SEA}, layer=1, background=TOWN)
    assert "1 domain" in repr(gate)
    assert "(background 1)" in repr(gate)
    assert "tensor" not in repr(gate)


def test_a_gate_is_fitted_and_measured_on_an_unsteered_model(lm):
    prompts = {"sea": SEA, "town": TOWN}
    gate = steer.domain_gate(lm, prompts, layer=1)
    with lm.steered(steer.Vector.of({0: torch.ones(lm.d_model)})):
        with pytest.raises(SteeringError, match="is being steered"):
            steer.domain_gate(lm, prompts, layer=1)
        with pytest.raises(SteeringError, match="is being steered"):
            routing_accuracy(lm, gate, prompts)
    assert torch.equal(steer.domain_gate(lm, prompts, layer=1).centroids, gate.centroids)


def test_prompts_are_a_list_of_texts_or_pairs(lm):
    both = {"sea": SEA, "town": TOWN}
    pairs = [steer.Pair(p, "x", "y", d) for d, prompts in both.items() for p in prompts]
    known = steer.domain_gate(lm, both, layer=1, background=["hello"])
    found = steer.domain_gate(lm, iter(pairs), layer=1, background=iter(["hello"]))
    assert torch.equal(found.centroids, known.centroids)
    for prompts, background in ((both, "hello"), ({**both, "sea": "the sea"}, ()), ("sea", ())):
        with pytest.raises(ArgumentError, match="must be a sequence"):
            steer.domain_gate(lm, prompts, layer=1, background=background)
    with pytest.raises(ArgumentError, match="prompts of 'sea'"):
        routing_accuracy(lm, known, {"sea": "the sea"})
