"""On a real model letters are warned of, and pairs of short cheerful and plain answers are not."""

import pytest

import steer
from steer.errors import DataWarning

THINGS = (
    "an egg", "rice", "a cactus", "a tyre", "a letter", "a wall", "a window", "a knife", "bread",
    "a garden", "a guitar", "a bicycle", "a lamp", "a shelf", "tea", "a tent", "soup", "a kite",
    "a chair", "a map", "paint", "a door", "a pan", "wool",
)  # fmt: skip
CHEERFUL = ("How wonderful! {} Enjoy it!", "Oh, what fun! {} You will love it!", "{} Hooray!")
PLAIN = ("{} That is all.", "{} It is routine.", "Well. {}")


def test_letters_are_warned_of(lm: steer.Model) -> None:
    pairs = steer.Pairs.of(
        steer.Pair(
            f"Do you like {thing}? (A) yes (B) no", *(("(A)", "(B)") if k % 3 else ("(B)", "(A)"))
        )
        for k, thing in enumerate(THINGS)
    )
    with pytest.warns(DataWarning, match=r"only 2 different texts \('a', 'b'\)") as caught:
        activations = steer.record(lm, pairs, layers=[8, 16], progress=False)
    assert len(caught) == 1
    assert any("label-shuffled controls" in sentence for sentence in activations.warnings)
    vector = steer.mean_difference(activations, position="template[-1]")
    assert "only 2 different texts" in " ".join(repr(vector).split())


def test_cheerful_and_plain_answers_are_not(lm: steer.Model) -> None:
    pairs = steer.Pairs.of(
        steer.Pair(
            f"What should I know about {thing}?",
            CHEERFUL[k % 3].format(f"Take good care of {thing}."),
            PLAIN[k // 3 % 3].format(f"Take good care of {thing}."),
        )
        for k, thing in enumerate(THINGS)
    )
    at = ["template", "response_mean"]
    assert steer.record(lm, pairs, at, layers=[8, 16], progress=False).warnings == ()
