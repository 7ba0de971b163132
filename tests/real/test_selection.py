"""On a real model the recipe finds a setting whose effect can be read in the text."""

import steer
from steer.demo.real.behaviours import ASKED, held_out, judge, pairs
from steer.demo.real.rules import on_topic


def test_the_recipe_writes_cheerful_answers_on_topic_within_a_kl_of_a_half(
    lm: steer.Model,
) -> None:
    """On text that took no part too, since a race keeps to the budget by an upper bound."""
    recording = steer.record(lm, pairs("cheerful"), at="response_mean", layers=[16], progress=False)
    unseen = held_out("cheerful")
    found = steer.select(
        lm,
        recording,
        unseen[:12],
        test=unseen[12:],
        limits=steer.Limits(kl=0.5),
        judge=judge("cheerful"),
        wanted="cheerful",
        progress=False,
    )
    assert found.kl is not None
    assert found.kl <= 0.5
    assert found.likelihood_effect, found
    assert found.visible is not None
    assert found.visible.changed.value == 1
    with lm.steered(found):
        answers = lm.generate(list(ASKED), max_new_tokens=32)
    cheerful = [judge("cheerful")(q, a) == "cheerful" for q, a in zip(ASKED, answers, strict=True)]
    assert sum(cheerful) >= 0.8 * len(ASKED), answers
    assert sum(map(on_topic, ASKED, answers)) >= 0.8 * len(ASKED), answers


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
