"""A check leaves the model and the random state as they were, also where it fails."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from steer.network import find_architecture
from tests.conformance.cases import Snapshot
from tests.network.refusals import broken, refused
from tests.tiny import FAMILIES, tiny_model


@contextmanager
def unchanged(model: PreTrainedModel) -> Iterator[None]:
    """Fail if the model, its gradients or the random state differ at the end."""
    before, random = Snapshot(model), torch.get_rng_state()
    gradients = [(p.requires_grad, p.grad) for p in model.parameters()]
    yield
    before.check(model)
    assert torch.equal(torch.get_rng_state(), random)
    assert gradients == [(p.requires_grad, p.grad) for p in model.parameters()]


def off_by_a_little(model: PreTrainedModel) -> PreTrainedModel:
    model.register_forward_hook(_cut_the_last_logit)
    return model


def _cut_the_last_logit(_m: nn.Module, _i: Any, out: Any) -> Any:
    out["logits"] = out["logits"] * torch.ones(128).index_fill(0, torch.tensor([127]), 0.9)
    return out


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("spoil", [broken, off_by_a_little], ids=["raises", "differs"])
def test_nothing_is_left_behind_by_a_failed_check(
    spoil: Callable[[PreTrainedModel], PreTrainedModel], training: bool
) -> None:
    model = spoil(tiny_model("llama").train(training))
    with unchanged(model):
        refused(model, "cannot be run|does not give")


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_left_behind_by_a_check(family: str) -> None:
    model = tiny_model(family)
    with unchanged(model):
        find_architecture(model)


def test_training_mode_and_frozen_parts_are_kept() -> None:
    dropout = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}
    model = tiny_model("gpt2", **dropout).train()
    model.transformer.h[1].eval()
    assert {module.training for module in model.modules()} == {False, True}
    with unchanged(model):
        assert find_architecture(model).n_layers == 4


def test_layers_dropped_in_training_do_not_disturb() -> None:
    model = tiny_model("opt", layerdrop=0.9, dropout=0.5).train()
    assert find_architecture(model).n_layers == 4
    assert model.training


def test_randomness_in_the_model_leaves_the_global_state() -> None:
    model = tiny_model("llama")
    model.model.norm.register_forward_hook(lambda _m, _i, out: out + 0 * torch.rand(()))
    before = torch.get_rng_state()
    find_architecture(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_flow_through_unembed() -> None:
    found = find_architecture(tiny_model("gemma2"))
    h = torch.randn(3, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found.unembed(h).sum().backward()
    assert h.grad is not None
    assert h.grad.abs().max() > 0
