import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer.demo.data import ANSWERS, DOMAINS, LEVELS, TOPICS
from steer.demo.judge import Judgement, judge
from steer.demo.language import (
    NEUTRAL_PROMPTS,
    SPLITS,
    answer,
    pairs,
    questions,
    system_tags,
    topics,
)
from steer.errors import ArgumentError

UNCLEAR = Judgement(None, None)
CELLS = [(domain, level) for domain in DOMAINS for level in LEVELS]
cells = st.sampled_from(CELLS)
seeds = st.integers(0, 2**32)


def an_answer(domain: str, level: str, seed: int = 0) -> str:
    rng = random.Random(seed)
    return answer(domain, level, rng.choice(TOPICS[domain]), rng)


def every_answer(domain: str, level: str) -> set[str]:
    rng = random.Random(0)
    return {answer(domain, level, topic, rng) for topic in TOPICS[domain] for _ in range(60)}


@pytest.mark.parametrize(("domain", "level"), CELLS)
def test_every_generated_answer_is_judged_right(domain, level):
    found = every_answer(domain, level)
    assert len(found) > 100
    assert {judge(text) for text in found} == {Judgement(domain, level)}


@given(cells, cells, seeds, seeds)
def test_two_answers_in_one_text_are_unclear(one, other, seed, other_seed):
    text = an_answer(*one, seed) + " " + an_answer(*other, other_seed)
    assert judge(text) == UNCLEAR


@given(cells, cells, seeds, seeds)
def test_a_spliced_answer_is_judged_only_where_its_halves_agree(one, other, seed, other_seed):
    opening = an_answer(*one, seed).split(". ")[0]
    closing = an_answer(*other, other_seed).split(". ")[1]
    expected = Judgement(
        one[0] if one[0] == other[0] else None, one[1] if one[1] == other[1] else None
    )
    assert judge(f"{opening}. {closing}") == expected


@given(cells, seeds, st.data())
def test_words_in_another_order_are_unclear(cell, seed, data):
    words = an_answer(*cell, seed).split()
    assert judge(" ".join(sorted(words))) == UNCLEAR
    assert judge(data.draw(st.text())) == UNCLEAR


@pytest.mark.parametrize(("domain", "level"), CELLS)
def test_half_an_answer_is_unclear(domain, level):
    for half in an_answer(domain, level).split(". "):
        assert judge(half) == UNCLEAR


def test_questions_and_small_talk_are_unclear():
    assert len(NEUTRAL_PROMPTS) == len(set(NEUTRAL_PROMPTS)) == 30
    texts = [*NEUTRAL_PROMPTS, *(text for domain in DOMAINS for text in questions(domain, 50))]
    assert {judge(text) for text in texts} == {UNCLEAR}


def test_a_marker_is_no_part_of_a_longer_word():
    text = an_answer("medical", "avoidance")
    assert judge(text.replace("doctor", "doctorate")) == UNCLEAR


@pytest.mark.parametrize("domain", DOMAINS)
def test_topics_are_split_without_overlap(domain):
    names = [[topic.name for topic in topics(domain, split)] for split in SPLITS]
    assert [len(part) for part in names] == [10, 3, 3]
    assert len({name for part in names for name in part}) == 16


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("split", ["validation", "test"])
def test_held_out_questions_share_no_topic_with_the_pairs(domain, split):
    held_out = [topic.name for topic in topics(domain, split)]
    for pair in pairs(domain):
        texts = (str(pair.prompt), pair.chosen, pair.rejected)
        assert not any(name in text for name in held_out for text in texts)
    for text in questions(domain, 100, split=split):
        assert any(name in text for name in held_out)


def test_questions_are_different_and_follow_the_seed():
    found = questions("legal", 300, seed=3)
    assert len(set(found)) == 300
    assert found == questions("legal", 300, seed=3)
    assert found != questions("legal", 300, seed=4)


def test_pairs_hold_the_question_and_two_levels():
    found = pairs("financial", 20, chosen_level="generic", rejected_level="expert")
    assert len({pair.prompt for pair in found}) == len(found) == 20
    assert {pair.domain for pair in found} == {"financial"}
    for pair in found:
        assert judge(pair.chosen) == Judgement("financial", "generic")
        assert judge(pair.rejected) == Judgement("financial", "expert")


def test_global_random_state_is_not_touched():
    random.seed(5)
    before = random.getstate()
    pairs("medical", 10)
    assert random.getstate() == before


def test_system_tags_keep_the_order_given():
    tags = {"legal": "generic", "medical": "expert"}
    assert system_tags(tags) == "legal=generic medical=expert"


@pytest.mark.parametrize(
    "call",
    [
        lambda: questions("tax", 1),
        lambda: questions("legal", 1, split="dev"),
        lambda: questions("legal", 0),
        lambda: questions("legal", 10**6),
        lambda: pairs("legal", 1, chosen_level="best"),
        lambda: pairs("legal", 1, rejected_level="worst"),
        lambda: system_tags({}),
        lambda: system_tags({"tax": "expert"}),
        lambda: system_tags({"legal": "best"}),
    ],
)
def test_unknown_names_and_numbers_are_refused(call):
    with pytest.raises(ArgumentError, match="to do"):
        call()


def test_no_marker_is_part_of_another_template():
    templates = [t for a in ANSWERS.values() for t in (*a.openings, *a.closings)]
    for template in templates:
        marker = template.split("*")[1]
        assert sum(marker in other.replace("*", "") for other in templates) == 1
