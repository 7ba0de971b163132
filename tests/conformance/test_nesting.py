"""Contract 3: contexts nest; additions add up, for the rest entry order is the order."""

import pytest
import torch

from steer import Composition, Part, compose
from tests.conformance import cases
from tests.conformance.cases import PROMPTS, close, far
from tests.conformance.engines import EngineFactory

A, B = cases.vector(1, 2, seed=1), cases.vector(2, 3, seed=2)


def last(lm: object) -> torch.Tensor:
    """The stream after the last block, all tokens of all prompts."""
    rows = lm.activations(PROMPTS, layers=[cases.LAYERS - 1])  # type: ignore[attr-defined]
    return torch.cat([row[0] for row in rows])


@pytest.mark.parametrize("scope", ["all", "prompt", "all[3:]"])
def test_two_additions_are_their_sum(engine_factory: EngineFactory, scope: str) -> None:
    lm = engine_factory.shared()
    with lm.steered(A, 0.7, scope=scope), lm.steered(B, -0.4, scope=scope):
        nested = last(lm)
    with lm.steered(0.7 * A + -0.4 * B, scope=scope):
        close(nested, last(lm))
    far(nested, last(lm))


def test_entry_order_is_the_order_of_effect(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    layer = cases.LAYERS - 1
    v = cases.vector(layer, seed=1)
    w = v + cases.vector(layer, seed=2)  # not orthogonal, so that the order matters
    plain = last(lm).double()
    unit = w.direction(layer).double() / w.direction(layer).double().norm()
    added = v.direction(layer).double()
    with lm.steered(v), lm.steered(w, operator="ablate"):
        add_then_ablate = last(lm)
    with lm.steered(w, operator="ablate"), lm.steered(v):
        ablate_then_add = last(lm)
    moved = plain + added
    close(add_then_ablate, moved - (moved @ unit)[:, None] * unit)
    close(ablate_then_add, plain - (plain @ unit)[:, None] * unit + added)
    far(add_then_ablate, ablate_then_add)


def test_in_one_composition_ablation_comes_first_whatever_the_order_of_domains(
    engine_factory: EngineFactory,
) -> None:
    lm = engine_factory.shared()
    layer = cases.LAYERS - 1
    v, w = cases.vector(layer, seed=1), cases.vector(layer, seed=2)
    with lm.steered(w, operator="ablate"), lm.steered(v):
        expected = last(lm)
    for parts in ({"a": Part(v), "b": Part(w, "ablate")}, {"b": Part(w, "ablate"), "a": Part(v)}):
        with lm.steered(parts):
            close(last(lm), expected)


def test_handles_are_removed_in_any_order(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    plain = last(lm)
    with lm.steered(B):
        only_b = last(lm)
    first, second = lm.steered(A).attach(), lm.steered(B).attach()
    assert first.active
    first.remove()
    assert not first.active
    assert torch.equal(last(lm), only_b)
    second.remove()
    assert torch.equal(last(lm), plain)
    first.remove()  # doing so twice does nothing
    assert torch.equal(last(lm), plain)


def test_removing_twice_leaves_the_hooks_of_others_where_they_are(
    in_place: EngineFactory,
) -> None:
    lm = in_place.shared()
    first, second = (lm.engine.attach(compose(v=v)) for v in (A, B))
    first.remove()
    hooks = [dict(block._forward_hooks) for block in lm.architecture.blocks]
    first.remove()
    assert [dict(block._forward_hooks) for block in lm.architecture.blocks] == hooks
    assert any(hooks)
    second.remove()


def test_removing_the_outer_of_two_scoped_handles_keeps_the_inner(
    engine_factory: EngineFactory,
) -> None:
    lm = engine_factory.shared()
    with lm.steered(B, 2.0, scope="response"):
        only_b = lm.generate(PROMPTS, max_new_tokens=6)
    outer = lm.steered(A, 2.0, scope="last_prompt").attach()
    with lm.steered(B, 2.0, scope="response"):
        both = lm.generate(PROMPTS, max_new_tokens=6)
        outer.remove()
        assert lm.generate(PROMPTS, max_new_tokens=6) == only_b
    assert both != only_b


def test_the_same_vector_may_be_entered_twice(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    with lm.steered(A, 0.5), lm.steered(A, 0.5):
        twice = last(lm)
    with lm.steered(compose(x=A, y=A), 0.5):
        close(last(lm), twice)
    with lm.steered(A, 1.0):
        close(last(lm), twice)


def test_nested_rows_and_gates_keep_apart(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    gated: Composition = cases.knobs(gate=cases.gate(layer=-1))
    rows = [{"medical": 1.0}, {}, {"legal": -1.0}, {"financial": 2.0}]
    with lm.steered(gated, 0.8), lm.steered(cases.knobs(layers=[(3,)] * 3), rows):
        together = lm.activations(PROMPTS)
    for r, prompt in enumerate(PROMPTS):
        with lm.steered(gated, 0.8), lm.steered(cases.knobs(layers=[(3,)] * 3), rows[r : r + 1]):
            close(together[r], lm.activations([prompt])[0])
