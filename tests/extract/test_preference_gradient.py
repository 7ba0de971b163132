"""The gradient of the preference margin: a direction that central differences confirm."""

import warnings
from typing import Any

import pytest
import torch

import steer
from steer.errors import ArgumentError, RecordingError
from tests.tiny import tiny_model, tiny_tokenizer

_STEP = 1e-3  # in float64 the error of a central difference is of the order of its square


@pytest.fixture(scope="module")
def lm() -> steer.Model:
    model = tiny_model("llama").double()
    return steer.Model(model, tiny_tokenizer())


PAIRS = steer.Pairs.of(
    steer.Pair(f"Question {k}?", chosen, rejected)
    for k, (chosen, rejected) in enumerate(
        [("yes it is so", "no"), ("a long answer", "short"), ("it may", "it may not be")]
    )
)


def slope(lm: steer.Model, vector: steer.Vector, scope: str, reduce: str = "mean") -> float:
    """The change of the mean margin per coefficient, by a central difference."""
    ends = []
    for sign in (1, -1):
        with lm.steered(vector, sign * _STEP, scope=scope):
            ends.append(steer.preference(lm, PAIRS, reduce=reduce).margin)
    return (ends[0] - ends[1]) / (2 * _STEP)


@pytest.mark.parametrize("scope", ["all", "prompt", "response", "last_prompt"])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_the_margin_changes_along_any_vector_by_its_share_of_the_gradient(
    lm: steer.Model, scope: str, reduce: str
) -> None:
    found = steer.preference_gradient(lm, PAIRS, scope=scope, reduce=reduce, progress=False)
    assert found.layers == (0, 1, 2, 3)
    generator = torch.Generator().manual_seed(0)
    for layer in (0, 2):
        along = found[layer]
        steepest = slope(lm, along, scope, reduce)
        assert steepest > 0
        other = steer.Vector.of({layer: torch.randn(lm.d_model, generator=generator)})
        expected = steepest * (other @ along) / (along @ along)
        assert slope(lm, other, scope, reduce) == pytest.approx(
            expected, rel=1e-3, abs=1e-4 * steepest
        )


def test_it_is_as_long_as_the_stream_and_says_how_it_was_made(lm: steer.Model) -> None:
    found = steer.preference_gradient(lm, PAIRS, layers=[1], progress=False)
    assert found.relative_norm(1) == pytest.approx(1.0, rel=1e-5)
    assert found.provenance.method == "preference_gradient"
    assert found.provenance.pairs == 3
    assert found.provenance.pairs_fingerprint == PAIRS.fingerprint


def test_it_is_a_candidate_like_any_other(lm: steer.Model) -> None:
    vector = steer.preference_gradient(lm, PAIRS, progress=False)
    held_out = steer.Pairs.of(steer.Pair(f"Other {k}?", "yes it is", "no") for k in range(8))
    choice = steer.select(
        lm, vector, held_out, coefficients=(0.05,), neutral=None, answers=False, progress=False
    )
    assert choice.layer in vector.layers


def test_pairs_of_several_domains_are_refused(lm: steer.Model) -> None:
    both = PAIRS.with_domain("a") + steer.Pairs.of([steer.Pair("q", "a", "b", "b")])
    with pytest.raises(RecordingError, match="of_domain"):
        steer.preference_gradient(lm, both, progress=False)


def test_a_scope_without_effect_is_refused(lm: steer.Model) -> None:
    with pytest.raises(RecordingError, match="no gradient"):
        steer.preference_gradient(lm, PAIRS, layers=[3], scope="prompt[0:1]", progress=False)


@pytest.mark.parametrize(
    ("layers", "error"),
    [([-1], RecordingError), ([3, 4], RecordingError), ([], RecordingError)]
    + [(layers, ArgumentError) for layers in ([1.0], [None], [True], "12", 5)],
)
def test_layers_that_a_model_does_not_have_are_refused(
    lm: steer.Model, layers: Any, error: type[Exception]
) -> None:
    """Layer −1 would be the last block of a list, and a failed entry would leave hooks."""
    before = steer.preference_gradient(lm, PAIRS, layers=[3], progress=False)
    with pytest.raises(error):
        steer.preference_gradient(lm, PAIRS, layers=layers, progress=False)
    after = steer.preference_gradient(lm, PAIRS, layers=[3], progress=False)
    assert torch.equal(before.direction(3), after.direction(3))


def test_the_order_of_layers_does_not_matter(lm: steer.Model) -> None:
    ordered = steer.preference_gradient(lm, PAIRS, layers=[1, 3], progress=False)
    found = steer.preference_gradient(lm, PAIRS, layers=iter([3, 1, 3]), progress=False)
    assert found.layers == (1, 3)
    assert all(torch.equal(found.direction(n), ordered.direction(n)) for n in (1, 3))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_is_found_where_gradients_are_off(lm: steer.Model, mode: Any) -> None:
    expected = steer.preference_gradient(lm, PAIRS, layers=[2], progress=False)
    with mode():
        found = steer.preference_gradient(lm, PAIRS, layers=[2], progress=False)
    assert torch.equal(found.direction(2), expected.direction(2))
    assert not found.direction(2).is_inference()


def test_one_pair_has_no_error_and_no_warning(lm: steer.Model) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = steer.preference_gradient(lm, PAIRS[:1], progress=False)
    assert found.stats[2].standard_error is None
