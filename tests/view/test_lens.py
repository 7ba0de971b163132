"""The lens says what a vector promotes; a real forward with the vector must show just that."""

from typing import Any

import pytest
import torch
from torch import Tensor

import steer
from steer import view
from steer.errors import ArgumentError
from steer.model import prompt_batch
from tests.tiny import tiny_model, tiny_tokenizer
from tests.view.setting import asked, everywhere, last_block, model, next_logits

SMALL = 0.01  # coefficient of the real forward: about 1% of the stream's length


def ends(found: view.Lens, layer: int) -> list[int]:
    """The ids of the three tokens promoted most and of the three suppressed most."""
    row = found.effects[found.layers.index(layer)]
    return [*row.topk(3).indices.tolist(), *(-row).topk(3).indices.tolist()]


@pytest.mark.parametrize("path", ["direct", "model"])
def test_at_the_last_layer_the_logits_move_as_the_lens_says(path: Any) -> None:
    """Within 2%, for coefficients of ±0.01."""
    lm, last = model(), last_block()
    found = view.lens(lm, everywhere(), asked()[:1], layers=[last], path=path)
    with lm.steered(everywhere()[last], SMALL):
        up = next_logits(asked()[0])
    with lm.steered(everywhere()[last], -SMALL):
        down = next_logits(asked()[0])
    tokens = ends(found, last)
    measured = ((up - down) / (2 * SMALL))[tokens]
    predicted = found.effects[0, tokens]
    assert (predicted.abs() > 1).all()
    torch.testing.assert_close(measured, predicted, rtol=0.02, atol=0)


@pytest.mark.parametrize("layer", [0, 2, 4])
def test_through_later_blocks_the_lens_is_the_gradient(layer: int) -> None:
    """Within 1% of reverse-mode differentiation through the blocks, with a hook of its own."""
    lm, prompt = model(), asked()[0]
    found = view.lens(lm, everywhere(), [prompt], layers=[layer], path="model")
    v = everywhere().direction(layer)
    ids = torch.tensor([prompt_batch(lm.tokenizer, [prompt]).ids[0]])
    c = torch.zeros((), requires_grad=True)
    hook = lm.architecture.blocks[layer].register_forward_hook(lambda m, a, out: out + c * v)
    try:
        logits = lm.hf_model(input_ids=ids).logits[0, -1]
    finally:
        hook.remove()
    for token in ends(found, layer):
        (slope,) = torch.autograd.grad(logits[token], c, retain_graph=True)
        assert float(found.effects[0, token]) == pytest.approx(float(slope), rel=0.01)


def test_the_direct_path_is_the_derivative_of_norm_and_unembedding() -> None:
    """W (g ⊙ (v/r − h (h·v)/(d r³))) with r the root mean square of h."""
    lm, prompt = model(), asked()[1]
    found = view.lens(lm, everywhere(), [prompt])
    h = lm.activations([prompt])[0][:, -1].double()
    torch.testing.assert_close(found.effects, by_hand(h), rtol=1e-4, atol=1e-4)


def by_hand(h: Tensor) -> Tensor:
    architecture: Any = model().architecture
    gain = architecture.final_norm.weight.detach().double()
    W = architecture.unembedding.weight.detach().double()
    v = torch.stack([everywhere().direction(k).double() for k in everywhere().layers])
    r = h.square().mean(dim=-1, keepdim=True).sqrt()
    along = (h * v).sum(dim=-1, keepdim=True)
    result: Tensor = (gain * (v / r - h * along / (h.shape[-1] * r**3))) @ W.T
    return result


def test_what_lies_along_the_stream_changes_nothing() -> None:
    """The final norm takes it out."""
    lm, prompt = model(), asked()[0]
    h = lm.activations([prompt], layers=[2])[0][0, -1]
    found = view.lens(lm, steer.Vector.of({2: h}), [prompt])
    other = view.lens(lm, steer.Vector.of({2: h.flip(0)}), [prompt])
    assert found.effects.abs().max() < 1e-3 * other.effects.abs().max()


@pytest.mark.parametrize("family", ["gemma2", "gpt2", "opt"])
def test_other_norms_and_soft_caps_are_the_models_own(family: str) -> None:
    lm = steer.Model(tiny_model(family, dtype=torch.float64), tiny_tokenizer())
    last = lm.n_layers - 1
    v = torch.linspace(-1, 1, lm.d_model)
    found = view.lens(lm, steer.Vector.of({last: v}), ["Is it safe?"])
    h = lm.activations(["Is it safe?"], layers=[last])[0][0, -1]
    # Reverse mode; gemma's norm rounds to float32 inside, some ε of the largest effect.
    slope = torch.autograd.functional.jacobian(lm.architecture.unembed, h) @ v.to(h)
    bound = 32 * torch.finfo(torch.float32).eps * float(slope.abs().max())
    expected = slope.double()[: found.effects.shape[1]]
    torch.testing.assert_close(found.effects[0], expected, rtol=0, atol=bound)


def test_the_effect_is_the_mean_over_prompts() -> None:
    lm = model()
    both = view.lens(lm, everywhere(), asked()[:2], layers=[1]).effects
    single = [view.lens(lm, everywhere(), [p], layers=[1]).effects for p in asked()[:2]]
    torch.testing.assert_close(both, (single[0] + single[1]) / 2, rtol=1e-4, atol=1e-4)


def test_the_table_has_the_ends_in_order() -> None:
    found = view.lens(model(), everywhere(), asked()[:1], layers=[1, 3], k=4)
    rows = found.rows
    assert [(r["layer"], r["rank"]) for r in rows] == [(k, n) for k in (1, 3) for n in range(1, 5)]
    assert rows[0]["rise"] == float(found.effects[0].max())
    assert rows[0]["fall"] == float(found.effects[0].min())
    assert found.promoted(1)[0][0] == found.tokens[int(found.effects[0].argmax())]


def test_there_must_be_something_to_differentiate_at() -> None:
    with pytest.raises(ArgumentError, match="prompts is too short"):
        view.lens(model(), everywhere(), [])
