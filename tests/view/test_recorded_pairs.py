"""Views of single pairs read a recording that kept them, and do not run the model again."""

import pytest
import torch

import steer
from steer import view
from steer.errors import RecordingError, SteeringError
from tests.view.setting import AT, LAYER, activations, everywhere, held_out, model


def test_views_of_a_recording_equal_those_of_its_pairs() -> None:
    lm = model()
    kept = steer.record(lm, held_out(), AT, keep="pairs", progress=False)
    one, other = (view.separation(lm, everywhere(), p, position=AT) for p in (held_out(), kept))
    torch.testing.assert_close(one.chosen, other.chosen, rtol=1e-4, atol=1e-2)
    first, second = (
        view.principal_components(lm, p, layer=LAYER, position=AT) for p in (held_out(), kept)
    )
    torch.testing.assert_close(first.variance[:3], second.variance[:3], rtol=1e-3, atol=0)
    assert first.domains == second.domains


def test_a_recording_without_its_pairs_or_layers_is_refused() -> None:
    lm = model()
    with pytest.raises(RecordingError, match="keep='pairs'"):
        view.principal_components(lm, activations(), layer=LAYER, position=AT)
    kept = steer.record(lm, held_out(), AT, layers=[LAYER], keep="pairs", progress=False)
    with pytest.raises(RecordingError, match="were not recorded"):
        view.principal_components(lm, kept, layer=LAYER - 1, position=AT)
    with lm.steered(everywhere(), 0.5), pytest.raises(SteeringError):
        view.principal_components(lm, kept, layer=LAYER, position=AT)
