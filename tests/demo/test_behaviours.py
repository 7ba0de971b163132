"""The behaviours of the real model: 60 short pairs each, split cleanly, and rules that judge."""

import pytest

from steer.demo.real.behaviours import ASKED, BEHAVIOURS, TIPS, held_out, judge, pairs
from steer.demo.real.rules import on_topic


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_no_question_and_no_template_of_the_held_out_pairs_is_trained_on(behaviour: str) -> None:
    trained, unseen = pairs(behaviour), held_out(behaviour)
    assert (len(trained), len(unseen)) == (36, 24)
    assert len({*trained, *unseen}) == 60
    assert not {p.prompt for p in trained} & {p.prompt for p in unseen}
    tips = {tip.lower() for _, tip in TIPS}
    styles = [
        {_style(text, tips) for p in part for text in (p.chosen, p.rejected)} - {""}
        for part in (trained, unseen)
    ]
    assert not styles[0] & styles[1]


def _style(answer: str, tips: set[str]) -> str:
    """Return an answer without its tip, in lower case."""
    text = answer.lower()
    for tip in tips:
        text = text.replace(tip, "")
    return text


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_questions_of_answers_occur_in_no_pair(behaviour: str) -> None:
    assert len(set(ASKED)) == 20
    assert not set(ASKED) & {p.prompt for p in (*pairs(behaviour), *held_out(behaviour))}


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_the_rule_tells_the_held_out_answers_apart(behaviour: str) -> None:
    label = judge(behaviour)
    assert all(label(p.prompt, p.chosen) == behaviour for p in held_out(behaviour))
    assert not any(label(p.prompt, p.rejected) == behaviour for p in held_out(behaviour))


def test_a_formal_answer_has_an_opposite_and_a_plain_one_is_neither() -> None:
    label = judge("formal")
    assert label("", "hey, that's easy dude") == "casual"
    assert label("", "Put the egg into water.") == "neither"


def test_an_answer_on_topic_has_a_word_of_its_question() -> None:
    assert on_topic("How do I clean a window?", "CLEANING takes a dry cloth.")
    assert on_topic("What can I bake with bananas?", "Baking is fun.")
    assert not on_topic("How do I clean a window?", "How do I know what you should do?")
    assert not on_topic("How do I make a start?", "You make a good start.")
