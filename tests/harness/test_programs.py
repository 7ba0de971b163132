"""pass@k is the exact share of k-subsets that hold a passing sample."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer.errors import ArgumentError
from steer.harness import pass_at_k


@given(st.data())
def test_it_is_the_share_of_subsets_with_a_pass(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 8))
    passed = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    subsets = list(combinations([i < passed for i in range(n)], k))
    wanted = sum(any(subset) for subset in subsets) / len(subsets)
    assert pass_at_k(n, passed, k) == pytest.approx(wanted, abs=1e-12)


@given(st.integers(1, 300), st.data())
def test_one_of_one_is_the_share_and_all_is_any(n: int, data: st.DataObject) -> None:
    passed = data.draw(st.integers(0, n))
    assert pass_at_k(n, passed, 1) == pytest.approx(passed / n)
    assert pass_at_k(n, passed, n) == float(passed > 0)


@pytest.mark.parametrize("numbers", [(1, 0, 2), (3, 4, 1), (3, -1, 1), (3, 1, 0)])
def test_impossible_numbers_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ArgumentError, match="pass@k"):
        pass_at_k(*numbers)
