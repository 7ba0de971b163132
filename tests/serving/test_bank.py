"""The coefficients of a step's tokens, against a loop over requests and tokens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steer.serving._bank import Bank

CPU = torch.device("cpu")
SLOTS, TOKENS = 3, 40
_ENTRY = st.tuples(
    st.integers(0, SLOTS - 1),
    st.floats(-2, 2, width=32),
    st.integers(0, 12),
    st.integers(0, 24),
)
_REQUEST = st.tuples(
    st.lists(_ENTRY, max_size=SLOTS, unique_by=lambda e: e[0]),
    st.integers(1, 6),  # tokens of this step
    st.integers(0, 16),  # tokens before
)


def _bank(requests: int = 6) -> Bank:
    bank = Bank([0, 2], 4, SLOTS, TOKENS, requests, CPU)
    for slot in range(SLOTS):
        bank.write(slot, str(slot), {0: torch.full((4,), slot + 1.0)})
    return bank


@given(st.lists(st.lists(_REQUEST, min_size=1, max_size=6), min_size=1, max_size=5))
def test_each_step_has_the_coefficients_that_its_requests_ask_for(steps: list[list]) -> None:
    bank = _bank()
    for step, requests in enumerate(steps):
        names = [f"{step}-{k}" for k in range(len(requests))]
        held = {
            name: [(slot, str(slot), c, first, end) for slot, c, first, end in asked]
            for name, (asked, _, _) in zip(names, requests, strict=True)
        }
        bank.keep(held, held.__getitem__)
        bank.fill(names, [r[1] for r in requests], [r[2] for r in requests])
        expected = torch.zeros(TOKENS, SLOTS)
        at, steered = 0, {}
        for name, (asked, count, computed) in zip(names, requests, strict=True):
            steered[name] = 0
            for position in range(computed, computed + count):
                for slot, c, first, end in asked:
                    if first <= position < end:
                        expected[at, slot] = c
                steered[name] += any(first <= position < end for _, _, first, end in asked)
                at += 1
        assert torch.equal(bank.coefficients, expected)
        assert bank.steered == steered


def test_a_layer_that_a_vector_lacks_gets_zeros() -> None:
    bank = _bank()
    bank.write(1, "new", {2: torch.ones(4)})
    assert bank.directions[0][1].tolist() == [0.0] * 4
    assert bank.directions[2][1].tolist() == [1.0] * 4


def test_a_slot_that_holds_another_vector_is_never_used_for_a_request() -> None:
    bank = _bank()
    with pytest.raises(RuntimeError, match="slot 1"):
        bank.keep(["r"], lambda name: [(1, "another", 1.0, 0, 9)])
