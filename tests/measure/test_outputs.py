"""Repetition and compression of answers, with their edges."""

import math
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer.errors import ArgumentError, SelectionError
from steer.measure import degeneration, repetition


def test_repeated_n_grams_are_counted_by_hand():
    #  a b, b a, a b, b a, a c: three of five bigrams are different
    assert repetition(["a b a b a c"], 2).value == pytest.approx(2 / 5)
    assert repetition(["x x x x"], 1).value == pytest.approx(3 / 4)
    assert repetition(["a b a b a c", "d e f"], 2).items == (pytest.approx(2 / 5), 0.0)


@pytest.mark.parametrize("answer", ["", "   ", "one", "one two three"])
def test_an_answer_too_short_for_an_n_gram_repeats_nothing(answer):
    assert repetition([answer], 4).value == 0.0


def test_words_are_what_the_split_says():
    assert repetition(["abab"], 1, split=list).value == 0.5
    assert repetition(["abab"], 1).value == 0.0


@given(st.lists(st.text("ab ", max_size=30), min_size=1, max_size=6), st.integers(1, 5))
def test_repetition_is_a_share_and_a_second_copy_repeats_more(answers, n):
    a = repetition(answers, n)
    assert 0 <= a.value <= 1
    twice = repetition([f"{answer} {answer}" for answer in answers], n)
    assert all(x >= y - 1e-12 for x, y in zip(twice.items, a.items, strict=True))


def test_compression_is_the_ratio_of_bytes():
    text = "ü na na na na na na na na"
    expected = len(text.encode()) / len(zlib.compress(text.encode(), 9))
    answers = [text, "", "la " * 300, "a quiet street", "\ud800"]
    found = degeneration(answers).compression.items
    assert found[0] == pytest.approx(expected)
    assert found[1] == 0.0
    assert found[2] > 20 > 2 > found[3]
    assert math.isfinite(found[4])


def test_one_table_says_what_is_wrong_with_answers():
    found = degeneration(["", "go " * 12, "a quiet street at night"])
    assert (found.empty.hits, found.empty.n) == (1, 3)
    assert found.words.items == (0, 12, 5)
    assert found.value == found.repetition.value == pytest.approx((8 / 9) / 3)
    assert [row["measure"].split(",")[0] for row in found.rows] == [
        "empty answers",
        "words of an answer",
        "repeated 4-grams",
        "compression (bytes / zlib bytes)",
    ]
    assert "empty answers" in repr(found)


def test_nothing_to_measure_is_refused():
    for measure in (repetition, degeneration):
        with pytest.raises(SelectionError):
            measure([])
    with pytest.raises(ArgumentError, match="n must be an integer"):
        repetition(["a b"], 0)


def test_every_result_is_a_pandas_table():
    found = degeneration(["a b a b", "c"])
    frame = found.to_pandas()
    assert list(frame["measure"]) == [row["measure"] for row in found.rows]
    assert list(frame.columns) == list(found.rows[0])
