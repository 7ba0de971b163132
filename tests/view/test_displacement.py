"""The bridge: what it reports is the stream with the vector minus the stream without."""

import pytest
import torch

import steer
from steer import view
from steer.errors import ArgumentError, RecordingError
from steer.model import prompt_batch
from steer.view._displacement import Tokens
from tests.view.setting import LAYER, asked, everywhere, model, palrs, weights

ANSWERS = ("Most people feel better after some rest.", "Please see a doctor.")


def test_an_alignment_vector_moves_the_stream_by_with_minus_without() -> None:
    lm, prompts = model(), asked()
    found = view.displacement(lm, weights(), prompts, 0.7)
    before = lm.activations(prompts)
    with lm.steered(weights(), 0.7):
        after = lm.activations(prompts)
    by_hand = torch.stack([(b - a)[:, -1] for a, b in zip(before, after, strict=True)]).double()
    torch.testing.assert_close(found.moved, by_hand, rtol=1e-4, atol=0.05)
    assert found.moved.norm() > 100
    norms = torch.stack([row[:, -1].norm(dim=-1) for row in before]).double()
    torch.testing.assert_close(found.norm, norms, rtol=1e-5, atol=0)
    shares = found.moved.norm(dim=-1) / norms
    assert [e.value for e in found.relative] == pytest.approx(shares.mean(dim=0).tolist())


@pytest.mark.parametrize("tokens", ["prompt", "response", "all"])
def test_the_tokens_read_are_those_asked_for(tokens: Tokens) -> None:
    lm, prompts = model(), asked()[:2]
    found = view.displacement(lm, weights(), prompts, responses=ANSWERS, tokens=tokens)
    before = lm.activations(prompts, ANSWERS)
    with lm.steered(weights(), 1.0):
        after = lm.activations(prompts, ANSWERS)
    for k, (a, b) in enumerate(zip(before, after, strict=True)):
        length = len(prompt_batch(lm.tokenizer, [prompts[k]]).ids[0])
        span = {"prompt": slice(length), "response": slice(length, None), "all": slice(None)}
        by_hand = (b - a)[:, span[tokens]].double().mean(dim=1)
        torch.testing.assert_close(found.moved[k], by_hand, rtol=1e-4, atol=0.05)


def test_a_residual_vector_moves_its_layer_by_itself_and_earlier_ones_not_at_all() -> None:
    found = view.displacement(model(), palrs(), asked(), 0.5, against=palrs())
    assert not found.moved[:, :LAYER].any()
    expected = 0.5 * palrs().direction(LAYER).double()
    for moved in found.moved[:, LAYER]:
        torch.testing.assert_close(moved, expected, rtol=1e-4, atol=0.01)
    assert found.cosine[LAYER].value == pytest.approx(1.0, abs=1e-6)
    assert float(found.common[LAYER]) == pytest.approx(1.0, abs=1e-6)
    assert found.common[:LAYER].isnan().all()
    assert found.cosine[0].value != found.cosine[0].value


def test_the_cosine_is_that_of_the_mean_displacement() -> None:
    lm, prompts = model(), asked()
    found = view.displacement(lm, weights(), prompts, against=everywhere())
    for layer, cosine in enumerate(found.cosine):
        moved = steer.Vector.of({layer: found.mean[layer]})
        assert cosine.value == pytest.approx(moved.cosine(everywhere()[layer]), abs=1e-6)
        low, high = cosine.interval
        assert -1 <= low <= cosine.value <= high <= 1
    opposite = view.displacement(lm, weights(), prompts, against=-1.0 * everywhere())
    assert opposite.cosine[2].value == pytest.approx(-found.cosine[2].value, abs=1e-6)


def test_adding_the_mean_displacement_at_a_layer_does_what_the_weights_did_there() -> None:
    """The claim of the bridge, acted out: most of what the weights do is one direction."""
    lm, prompts = model(), asked()
    found = view.displacement(lm, weights(), prompts)
    stand_in = steer.Vector.of({LAYER: found.mean[LAYER].float()})
    moved = view.displacement(lm, stand_in, prompts).moved[:, LAYER]
    rest = (found.moved[:, LAYER] - moved).square().sum() / found.moved[:, LAYER].square().sum()
    common = found.mean[LAYER].square().sum() / found.moved[:, LAYER].square().sum(-1).mean()
    assert float(rest) == pytest.approx(1 - float(common), abs=1e-3)
    assert float(common) > 0.9


def test_few_streams_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, prompts = model(), [*asked(), asked()[0] * 5]
    whole = view.displacement(lm, weights(), prompts, 0.7)
    lengths = [len(prompt_batch(lm.tokenizer, [prompt]).ids[0]) for prompt in prompts]
    token = 4 * lm.n_layers * lm.architecture.d_model
    for most in (1, max(lengths) * 2 * token):
        sizes: list[int] = []
        handle = lm.architecture.blocks[0].register_forward_hook(
            lambda _, args, __, sizes=sizes: sizes.append(args[0].shape[0] * args[0].shape[1])
        )
        monkeypatch.setitem(view.displacement.__globals__, "_AT_ONCE", most)
        found = view.displacement(lm, weights(), prompts, 0.7)
        handle.remove()
        torch.testing.assert_close(found.moved, whole.moved, rtol=1e-4, atol=0.05)
        assert max(sizes) <= max(most // token, *lengths)
        assert len(sizes) < 2 * len(prompts) or most == 1


def test_the_table_computes_the_cosines_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = view.displacement(model(), weights(), asked()[:3], against=palrs())
    cosines, calls = found.cosine, []
    monkeypatch.setattr(view.Displacement, "cosine", property(lambda _: calls.append(1) or cosines))
    assert [row["cosine"] for row in found.rows] == [e.value for e in cosines]
    assert len(calls) == 1


def test_nothing_to_read_or_to_compare_with_is_an_error() -> None:
    with pytest.raises(ArgumentError, match="prompts is too short"):
        view.displacement(model(), weights(), [])
    with pytest.raises(ArgumentError, match="pass responses"):
        view.displacement(model(), weights(), asked(), tokens="response")
    with pytest.raises(RecordingError, match="no direction at a layer"):
        view.displacement(model(), weights(), asked(), against=everywhere()[1:3])


def test_a_length_is_not_below_zero() -> None:
    found = view.displacement(model(), weights(), asked()[:2])
    assert all(e.interval[0] >= 0.0 for e in found.relative)
