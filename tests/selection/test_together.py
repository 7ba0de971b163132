"""Settings of several compositions measured together are what each of them is alone."""

import pytest
import torch
from scipy.stats import t

import steer
from steer.measure import kl_divergence, perplexity
from steer.measure._answers import answers_at
from steer.measure._reduce import reduced
from steer.measure._scores import DataScorer, at, preferences
from steer.measure._side_effects import SideEffects
from tests.letters import letter_pairs
from tests.tiny import tiny_model, tiny_tokenizer

NEUTRAL = ("how are you", "what is it", "a b c")


@pytest.fixture(scope="module")
def lm() -> steer.Model:
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


def knob(lm: steer.Model, layers: tuple[int, ...], seed: int, scope: str = "all") -> steer.Part:
    generator = torch.Generator().manual_seed(seed)
    vector = {layer: torch.randn(lm.d_model, generator=generator) for layer in layers}
    return steer.Part(steer.Vector.of(vector), "add", scope)


@pytest.fixture(scope="module")
def settings(lm: steer.Model) -> list[tuple[steer.Composition, tuple[float, ...]]]:
    """Ascending and not, at layers that overlap, several of one, with zeros, and in two scopes."""
    high = steer.compose(a=knob(lm, (3,), 1), b=knob(lm, (1,), 2))
    low = steer.compose(a=knob(lm, (-1, 2), 3))
    some = steer.compose(a=knob(lm, (0,), 4, "response"))
    gate = steer.domain_gate(lm, {"a": ["a b c", "b a c"], "other": ["x y", "y z"]}, layer=0)
    gated = steer.compose(a=knob(lm, (2,), 5)).gated(gate)
    rows = [(high, (0.5, 0.0)), (low, (0.3,)), (high, (0.0, 0.0)), (some, (-0.7,))]
    return [*rows, (high, (0.2, -0.4)), (gated, (0.6,)), (low, (0.0,))]


def test_scores_are_those_of_each_setting_alone(lm: steer.Model, settings) -> None:
    pairs = letter_pairs(6)
    found = DataScorer(lm, {"a": pairs}, "sum")(settings)["a"]
    prompts = [pair.prompt for pair in pairs] * 2
    answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    for (composition, row), scores in zip(settings, found, strict=True):
        with lm.steered(composition, list(row)):
            alone = reduced(lm.logprobs(prompts, answers), "sum").reshape(2, -1)
        # float32 logits of a few nats, summed over at most ten tokens
        torch.testing.assert_close(scores.double(), alone.double(), rtol=1e-4, atol=1e-4)
    assert torch.equal(found[2], found[6]), "the unsteered model is one, to the last bit"


def test_side_effects_are_those_of_each_setting_alone(lm: steer.Model, settings) -> None:
    text = steer.neutral_text(lm, NEUTRAL)
    found = SideEffects(lm, text)(settings)
    base = perplexity(lm, text.prompts, text.responses).value
    for (composition, row), (kl, error, factor) in zip(settings, found, strict=True):
        with lm.steered(composition, list(row)):
            expected = kl_divergence(lm, text)
            assert kl == pytest.approx(expected.value, rel=1e-3, abs=1e-6)
            half = (expected.interval[1] - expected.value) / t.ppf(0.975, expected.n - 1)
            assert error == pytest.approx(half, rel=1e-3, abs=1e-6)
            after = perplexity(lm, text.prompts, text.responses).value
        assert factor == pytest.approx(after / base, rel=1e-4)
    nothing = pytest.approx(0.0, abs=1e-6)
    assert found[2] == found[6] == (nothing, nothing, pytest.approx(1.0, abs=1e-6))


def test_answers_are_those_of_each_setting_alone(lm: steer.Model, settings) -> None:
    found = answers_at(lm, settings, NEUTRAL, 6)
    for (composition, row), answers in zip(settings, found, strict=True):
        with lm.steered(composition, list(row)):
            assert answers == lm.generate(list(NEUTRAL), max_new_tokens=6)


def test_a_lower_layer_is_not_run_for_a_setting_that_starts_above_it(lm: steer.Model) -> None:
    """Rows that pass through each block: of the unsteered text, and of those that start below."""
    rows: dict[int, int] = {}

    def count(layer: int):
        def hook(module, args, output):
            rows[layer] = max(rows.get(layer, 0), args[0].shape[0])

        return hook

    compositions = [steer.compose(a=knob(lm, (layer,), layer))(1.0) for layer in (0, 2, 2, 2)]
    knobs = [at(composition) for composition in compositions]
    preferences(lm, knobs, {"a": letter_pairs(2)}, "mean")  # tries the model first
    blocks = lm.architecture.blocks
    handles = [block.register_forward_hook(count(k)) for k, block in enumerate(blocks)]
    try:
        preferences(lm, knobs, {"a": letter_pairs(2)}, "mean")
    finally:
        for handle in handles:
            handle.remove()
    assert rows[1] == 1, "settings at layer 2 do not run through block 1"
    assert rows[3] == 3
