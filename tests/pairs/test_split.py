"""Laws of division: a partition, deterministic, even over domains, no prompt on two sides."""

import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer.errors import ArgumentError, PairsError
from steer.pairs import Message, Pair, Pairs


def numbered(count, domain=None, start=0):
    return [Pair(f"{domain} {n}", "a", "b", domain) for n in range(start, start + count)]


THREE = Pairs.of(numbered(100, "legal") + numbered(100, "medical") + numbered(100, "finance"))

repeating = st.lists(
    st.tuples(st.sampled_from("ABCDEFGHIJ"), st.integers(0, 3), st.sampled_from(["x", "y"])),
    min_size=2,
    max_size=40,
).map(lambda rows: Pairs.of(Pair(q, f"+{n}", f"-{n}", d) for q, n, d in rows))


@given(pairs=repeating, share=st.floats(0.05, 0.95), seed=st.integers())
def test_a_partition_that_keeps_prompts_together(pairs, share, seed):
    try:
        parts = pairs.split(share, seed=seed)
    except PairsError as error:
        assert "would have no pair" in str(error)  # noqa: PT017
        return
    assert len(parts) == 2
    assert Counter(pair for part in parts for pair in part) == Counter(pairs)
    prompts = [{pair.prompt for pair in part} for part in parts]
    assert not prompts[0] & prompts[1]
    assert all(part.domains == pairs.domains for part in parts)
    assert parts == pairs.split(share, seed=seed)
    largest = max(Counter(pair.prompt for pair in pairs).values())
    assert abs(len(parts[0]) - share * len(pairs)) <= 0.5 + largest / 2
    for part, mine in zip(parts, prompts, strict=True):
        assert list(part) == [pair for pair in pairs if pair.prompt in mine]


@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=4), data=st.data())
def test_sizes_are_exact_and_shares_even_where_no_prompt_repeats(counts, data):
    pairs = Pairs.of(pair for d, n in enumerate(counts) for pair in numbered(n, f"d{d}"))
    size = data.draw(st.integers(1, len(pairs)))
    try:
        part = pairs.split(size)[0]
    except PairsError as error:
        assert "would have no pair" in str(error)  # noqa: PT017
        return
    assert len(part) == size
    for d, n in enumerate(counts):
        share = size * n / len(pairs)
        assert abs(len(part.of_domain(f"d{d}")) - share) <= len(counts)


@given(seed=st.integers(), order=st.randoms(use_true_random=False))
def test_the_order_of_the_pairs_plays_no_part(seed, order):
    pairs = numbered(12, "x") + numbered(7, "y") + numbered(5)
    shuffled = list(pairs)
    order.shuffle(shuffled)
    first = [set(part) for part in Pairs.of(pairs).split(0.5, 0.3, 0.2, seed=seed)]
    assert first == [set(part) for part in Pairs.of(shuffled).split(0.5, 0.3, 0.2, seed=seed)]


def test_domains_of_equal_size_get_equal_shares():
    train, held_out, test = THREE.split(0.7, 0.2, 0.1)
    assert [len(part) for part in (train, held_out, test)] == [210, 60, 30]
    for part, size in ((train, 70), (held_out, 20), (test, 10)):
        assert Counter(pair.domain for pair in part) == dict.fromkeys(THREE.domains, size)


def test_what_one_size_leaves_over_is_the_second_part():
    assert [len(part) for part in THREE.split(150)] == [150, 150]
    assert [len(part) for part in THREE.split(0.25)] == [75, 225]
    assert [len(part) for part in THREE.split(150, 60, 90)] == [150, 60, 90]
    assert [len(part) for part in THREE.split(*[0.1] * 10)] == [30] * 10
    assert THREE.split(1.0) == (THREE,)


def test_the_same_on_every_machine():
    first, _ = Pairs.of(numbered(10)).split(5)
    assert [pair.prompt for pair in first] == [f"None {n}" for n in (1, 2, 6, 7, 8)]
    assert Pairs.of(numbered(10)).split(5, seed=1)[0] != first


def test_global_random_state_is_left_alone():
    before = random.getstate()
    THREE.split(0.5, seed=3)
    assert random.getstate() == before


def test_text_and_one_user_message_are_the_same_prompt():
    pairs = Pairs.of(
        pair
        for n in range(20)
        for pair in (Pair(f"{n}", "a", "b"), Pair((Message("user", f"{n}"),), "c", "d"))
    )
    for part in pairs.split(0.5):
        kinds = Counter(type(pair.prompt) for pair in part)
        assert kinds[str] == kinds[tuple] == 10


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((0.8, 0.3), "0.8, 0.3"),
        ((301,), "sum to at most 300"),
        ((0,), "cannot be divided"),
        ((-0.5,), "cannot be divided"),
        ((float("nan"),), "cannot be divided"),
        ((0.5, 10), "fractions"),
        ((True,), "cannot be divided"),
        (("0.5",), "cannot be divided"),
        ((10**30,), "sum to at most 300"),
        (
            (100, 150),
            r"leave pairs over\n.*100, 150 of 300 pairs, and 50 more",
        ),
        ((0.5, 0.25), r"leave pairs over(.|\n)*split\(0.5, 0.25, 0.25\)"),
    ],
)
def test_sizes_that_make_no_sense(parts, message):
    with pytest.raises(PairsError, match=message):
        THREE.split(*parts)


def test_nothing_cannot_be_divided():
    with pytest.raises(PairsError, match=r"for 0 pairs"):
        Pairs.of([]).split(0.5)


def test_a_part_must_not_be_empty():
    same = Pairs.of(Pair("Q", f"{n}", "b") for n in range(10))
    with pytest.raises(PairsError, match=r"part 1 .* no pair\n.*10 pairs with 1 different prompts"):
        same.split(0.5, 0.5)
    with pytest.raises(PairsError, match=r"part \d .* no pair of domain 'rare'\n.*1 pairs"):
        Pairs.of(numbered(50, "legal") + numbered(1, "rare")).split(0.5, 0.5)


def test_sizes_and_seeds_of_a_library_are_numbers():
    assert THREE.split(np.int64(100), np.int32(200)) == THREE.split(100, 200)
    assert THREE.split(np.float32(0.5), Fraction(1, 2)) == THREE.split(0.5, 0.5)
    assert THREE.split(0.5, seed=np.int64(3)) == THREE.split(0.5, seed=3)


@pytest.mark.parametrize("seed", [1.0, True, None])
def test_seed_is_an_int(seed):
    with pytest.raises(ArgumentError, match="seed must be an integer"):
        THREE.split(0.5, seed=seed)


def test_without_sizes_sixty_percent_record_twenty_choose_and_twenty_test():
    train, held_out, test = THREE.split()
    assert [len(part) for part in (train, held_out, test)] == [180, 60, 60]
    assert (train, held_out, test) == THREE.split(0.6, 0.2, 0.2)
    twice = Pairs.of(Pair(f"{n}?", "a", f"b{k}") for n in range(30) for k in range(2))
    asked = [{pair.prompt for pair in part} for part in twice.split()]
    assert not asked[0] & asked[1] | asked[0] & asked[2] | asked[1] & asked[2]
