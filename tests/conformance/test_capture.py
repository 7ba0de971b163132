"""Contract 6: what is captured at a site after an addition there is baseline plus displacement."""

import pytest
import torch

from tests.conformance import cases
from tests.conformance.cases import PROMPTS, close
from tests.conformance.engines import EngineFactory
from tests.tiny import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_captured_is_baseline_plus_injected_in_every_family(
    engine_factory: EngineFactory, family: str
) -> None:
    lm = engine_factory.shared(family)
    plain = lm.activations(PROMPTS, layers=range(-1, lm.n_layers))
    for layer in (-1, 1, lm.n_layers - 1):
        v = cases.vector(layer, seed=layer + 5)
        with lm.steered(v, -0.6):
            steered = lm.activations(PROMPTS, layers=range(-1, lm.n_layers))
        for before, after in zip(plain, steered, strict=True):
            row = layer + 1
            close(after[row], before[row] - 0.6 * v.direction(layer))
            assert torch.equal(after[:row], before[:row])  # nothing changes below


def test_both_of_two_nested_contexts_are_captured(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    v, w = cases.vector(3, seed=1), cases.vector(3, seed=2)
    plain = lm.activations(PROMPTS, layers=[3])
    with lm.steered(v, 0.5), lm.steered(w, 2.0):
        steered = lm.activations(PROMPTS, layers=[3])
    for before, after in zip(plain, steered, strict=True):
        close(after, before + 0.5 * v.direction(3) + 2.0 * w.direction(3))


def test_only_the_tokens_of_the_scope_are_changed(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    v = cases.vector(3)
    plain = lm.activations(PROMPTS, layers=[3])
    with lm.steered(v, scope="last_prompt"):
        steered = lm.activations(PROMPTS, layers=[3])
    for before, after in zip(plain, steered, strict=True):
        assert torch.equal(after[0, :-1], before[0, :-1])
        close(after[0, -1], before[0, -1] + v.direction(3))


def test_in_bfloat16_to_one_rounding(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared(dtype=torch.bfloat16)
    v = cases.vector(2)
    plain = lm.activations(PROMPTS, layers=[2])
    with lm.steered(v, 0.6):
        steered = lm.activations(PROMPTS, layers=[2])
    for before, after in zip(plain, steered, strict=True):
        assert after.dtype == torch.bfloat16
        close(after, before.double() + 0.6 * v.direction(2).double(), bound=2**-7)
