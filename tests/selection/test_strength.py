"""A strength means the same on every vector: a displacement of the stream, or a KL."""

from itertools import pairwise

import pytest
import torch

import steer
from steer.errors import ArgumentError, CompositionError, SteeringError
from steer.measure._side_effects import SideEffects
from steer.selection import SettingResult
from steer.selection._strength import displacement, stream_norm
from tests.letters import letter_pairs, planted
from tests.tiny import plain_tokenizer, tiny_model, tiny_tokenizer

PROMPTS = ("how are you", "what is it", "a b c")


@pytest.fixture(scope="module")
def lm() -> steer.Model:
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


@pytest.fixture(scope="module")
def text(lm: steer.Model) -> steer.measure.NeutralText:
    return steer.neutral_text(lm, PROMPTS, max_new_tokens=8)


@pytest.mark.parametrize("scope", ["all", "response", "prompt"])
def test_the_norm_is_the_median_over_the_tokens_of_the_scope(lm, text, scope) -> None:
    norms = []
    special = {*lm.tokenizer.all_special_ids}
    for prompt, response in zip(text.prompts, text.responses, strict=True):
        stream = lm.activations([prompt], [response], layers=[2])[0][0]
        from steer.network import encode_exchange

        exchange = encode_exchange(lm.chat, prompt, response)
        for k, token in enumerate(exchange.ids):
            inside = {
                "all": True,
                "response": k >= exchange.response_start,
                "prompt": k < exchange.response_start,
            }[scope]
            if inside and k > 0 and token not in special:
                norms.append(float(stream[k].double().norm()))
    found = stream_norm(lm, 2, steer.Scope(scope), text)
    middle = sorted(norms)
    half = len(middle) // 2
    expected = middle[half] if len(middle) % 2 else (middle[half - 1] + middle[half]) / 2
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_first_token_does_not_count_whatever_it_is() -> None:
    """It is where attention goes when nothing else asks for it, also without a special token."""
    tokenizer = plain_tokenizer()
    tokenizer.backend_tokenizer.post_processor = None
    lm = steer.Model(tiny_model("llama"), tokenizer)
    text = steer.neutral_text(lm, PROMPTS, max_new_tokens=8)
    assert tokenizer("how are you").input_ids[0] not in tokenizer.all_special_ids
    with pytest.raises(CompositionError, match="relative to the stream"):
        stream_norm(lm, 2, steer.Scope("all", 0, 1), text)
    assert stream_norm(lm, 2, steer.Scope("all", 1, 2), text) > 0


@pytest.mark.parametrize("size", [0.01, 1.0, 300.0])
@pytest.mark.parametrize("relative", [0.3, -0.1])
def test_a_relative_strength_does_not_depend_on_the_length_of_the_vector(
    lm, size, relative
) -> None:
    v = torch.linspace(-1, 1, lm.d_model) * size
    vector = steer.Vector.of({2: v})
    knobs = lm.steered(vector, relative=relative).composition
    c = float(knobs.coefficients[0, 0])
    assert c * float(v.norm()) == pytest.approx(
        relative * stream_norm(lm, 2, steer.Scope("all")), rel=1e-5
    )
    assert displacement(lm, knobs, [c]) == pytest.approx(abs(relative), rel=1e-6)


def test_a_strength_in_kl_has_that_kl(lm) -> None:
    vector = steer.Vector.of({2: torch.linspace(-1, 1, lm.d_model)})
    text = steer.neutral_text(lm)
    with lm.steered(vector, kl=0.05):
        assert steer.kl_divergence(lm, text).value == pytest.approx(0.05, rel=0.06)


@pytest.mark.parametrize("size", [0.02, 1.0, 50.0])
def test_a_strength_in_kl_is_searched_from_small_coefficients(lm, monkeypatch, size) -> None:
    """It begins at 1/16 and is at most doubled, so that no strong push is ever tried."""
    tried = []
    measure = SideEffects.__call__

    def noted(self, knobs):
        tried.extend(row[0] for _, row in knobs)
        return measure(self, knobs)

    monkeypatch.setattr(SideEffects, "__call__", noted)
    vector = steer.Vector.of({2: size * torch.linspace(-1, 1, lm.d_model)})
    c = float(lm.steered(vector, kl=0.05).composition.coefficients[0, 0])
    assert tried[0] == 1 / 16
    assert all(after <= 2 * before for before, after in pairwise(tried))
    assert max(tried) <= max(2 * c, 1 / 16)


def test_a_strength_is_given_once_and_where_it_means_something(lm) -> None:
    vector = steer.Vector.of({2: torch.ones(lm.d_model)})
    with pytest.raises(CompositionError, match="given twice"):
        lm.steered(vector, 1.0, relative=0.3)
    with pytest.raises(CompositionError, match="given twice"):
        lm.steered(vector, relative=0.3, kl=0.1)
    with pytest.raises(ArgumentError, match="relative must be"):
        lm.steered(vector, relative="a lot")
    with pytest.raises(CompositionError, match="added to it"):
        lm.steered(vector, relative=0.3, operator="ablate")
    with pytest.raises(ArgumentError):
        lm.steered(vector, kl=-1.0)
    with lm.steered(vector, 0.5), pytest.raises(SteeringError):
        lm.steered(vector, kl=0.1)


def test_a_selection_says_how_far_it_displaces_the_stream(lm) -> None:
    found = steer.select(
        lm,
        planted(lm),
        letter_pairs(24),
        coefficients=(0.5,),
        limits=steer.Limits(),
        neutral=PROMPTS,
        progress=False,
    )
    assert isinstance(found.best, SettingResult)
    assert found.displacement == pytest.approx(displacement(lm, found.composition, [0.5]))
    assert "of the stream's median norm" in repr(found)


def test_a_kl_is_not_calibrated_for_rows(lm: steer.Model) -> None:
    rows = steer.compose(a=planted(lm))([{"a": 1.0}, {"a": -1.0}])
    with pytest.raises(CompositionError, match="calibrated for one setting"):
        lm.steered(rows, kl=0.1)
    assert lm.steered(rows, relative=0.1).composition.per_row
