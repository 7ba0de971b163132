"""On a real model the recipe finds a setting whose effect can be read in the text."""

import steer
from steer.demo.real.behaviours import held_out, judge, pairs


def test_cheerful_pairs_give_cheerful_answers_within_the_budget(lm: steer.Model) -> None:
    recording = steer.record(lm, pairs("cheerful"), at="response_mean", layers=[16], progress=False)
    found = steer.select(
        lm,
        recording,
        held_out("cheerful")[:16],
        judge=judge("cheerful"),
        wanted="cheerful",
        progress=False,
    )
    assert found.kl is not None
    assert found.kl <= 0.75, "the budget is 0.5 on the text that strengths are calibrated on"
    assert found.visible is not None
    assert found.visible.judged is not None
    before, after = found.visible.judged
    assert after.value > before.value, found.visible
    assert found.visible.changed.value >= 0.5


def test_a_vector_that_does_nothing_is_said_to_do_nothing(lm: steer.Model) -> None:
    """A ten-thousandth of the stream: no effect on likelihood, and no visible change."""
    vector = steer.mean_difference(
        steer.record(lm, pairs("cheerful"), at="response_mean", layers=[16], progress=False)
    )
    tiny = vector * (1e-4 / vector.relative_norm(16))
    found = steer.select(
        lm,
        tiny,
        held_out("cheerful")[:4],
        coefficients=(1.0,),
        limits=steer.Limits(),
        neutral=None,
        progress=False,
    )
    assert found.visible is not None
    assert not found.visible.changed.hits
    assert "No visible change" in repr(found)
