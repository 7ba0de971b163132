"""Vectors that act where a text is of their domain, on the demo model."""

import numpy as np
import pytest
import torch

import steer
from steer.algebra import LowRank, Vector, Weight
from steer.alignment import in_domain
from steer.demo import load_model
from steer.demo.language import pairs
from steer.errors import AlignmentError, ArgumentError, SteeringError
from steer.network import encode_exchange

DOMAINS = ("medical", "legal", "financial")
LAYER = 3


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.fixture(scope="module")
def texts():
    return steer.Pairs.of(pair for d in DOMAINS for pair in pairs(d, 12, seed=0))


@pytest.fixture(scope="module")
def residual(model):
    return {
        d: steer.preference_gradient(model, pairs(d, 12, seed=0), layers=[LAYER], progress=False)
        for d in DOMAINS
    }


@pytest.fixture(scope="module")
def read(model, residual, texts):
    return in_domain(model, residual, texts, progress=False)


def test_the_reader_is_the_ridge_regression_in_float64(model, residual, texts, read):
    inputs, rows = [], []
    module = model.hf_model.model.layers[LAYER].self_attn.o_proj
    handle = module.register_forward_pre_hook(lambda m, args: inputs.append(args[0][0].clone()))
    asked = dict.fromkeys((p.domain, p.prompt, a) for p in texts for a in (p.chosen, p.rejected))
    ids = [encode_exchange(model.chat, prompt, answer).ids for _, prompt, answer in asked]
    start = next(k for k, column in enumerate(zip(*ids, strict=False)) if len(set(column)) > 1)
    with torch.no_grad():
        for (domain, *_), text in zip(asked, ids, strict=True):
            model.hf_model(torch.tensor([text]))
            own = np.zeros((len(text), 3))
            own[start:, DOMAINS.index(domain)] = 1
            rows.append(own)
    handle.remove()
    x, y = torch.cat(inputs).double().numpy(), np.concatenate(rows)
    penalty = 0.01 * (x**2).sum() / x.shape[1]
    wanted = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    for domain, vector in read.items():
        (term,) = vector.terms.values()
        assert isinstance(term, LowRank)
        assert torch.equal(term.B[:, 0], residual[domain].direction(LAYER))
        np.testing.assert_allclose(
            term.A[0].numpy(), wanted[:, DOMAINS.index(domain)], rtol=2e-2, atol=2e-3
        )


def test_it_acts_in_its_domain_and_less_than_the_residual_vector_elsewhere(model, residual, read):
    new = {d: pairs(d, 8, seed=1, split="test") for d in DOMAINS}
    before = {d: steer.preference(model, part).margin for d, part in new.items()}

    def change(vector, c):
        with model.steered(vector, c):
            return {d: abs(steer.preference(model, p).margin - before[d]) for d, p in new.items()}

    for domain in DOMAINS:
        others = [d for d in DOMAINS if d != domain]
        everywhere, inside = change(residual[domain], 0.1), change(read[domain], 0.1)
        for other in others:
            assert inside[other] / inside[domain] < 0.5 * everywhere[other] / everywhere[domain]


def test_several_vectors_of_a_domain_and_the_record_of_it(model, residual, texts):
    named = {"medical": residual["medical"], "second": residual["medical"]}
    found = in_domain(model, named, texts, progress=False)
    assert found["second"].sites == (Weight(f"model.layers.{LAYER}.self_attn.o_proj.weight"),)
    assert found["second"].cosine(found["medical"]) == pytest.approx(1)
    assert found["second"].provenance.arguments["forms"] == ("in_domain(medical)",)
    assert found["second"].provenance.model == residual["medical"].provenance.model
    assert not found["second"].stats


def test_no_hook_remains_and_the_model_answers_as_before(model, residual, texts):
    before = model.logits(["My head hurts."], ["rest."])[0]
    in_domain(model, residual, texts, progress=False)
    module = model.hf_model.model.layers[LAYER].self_attn.o_proj
    assert not module._forward_pre_hooks
    assert torch.equal(model.logits(["My head hurts."], ["rest."])[0], before)


def test_what_cannot_be_read_is_refused(model, residual, texts, read):
    medical = {"medical": residual["medical"]}
    with pytest.raises(AlignmentError, match="at least two domains"):
        in_domain(model, medical, pairs("medical", 4), progress=False)
    with pytest.raises(AlignmentError, match="that of the vector among them"):
        in_domain(model, {"x": Vector.of({1: torch.ones(model.d_model)})}, texts)
    with pytest.raises(AlignmentError, match="residual"):
        in_domain(model, {"medical": read["medical"]}, texts)
    with pytest.raises(AlignmentError, match=r"self_attn\.o_proj"):
        in_domain(model, medical, texts, projection="attn.c_proj")
    with pytest.raises(AlignmentError, match="writes to the residual stream"):
        in_domain(model, medical, texts, projection="mlp.up_proj")
    with pytest.raises(ArgumentError):
        in_domain(model, medical, texts, ridge=0)
    with model.steered(residual["legal"], 0.1), pytest.raises(SteeringError):
        in_domain(model, medical, texts)
