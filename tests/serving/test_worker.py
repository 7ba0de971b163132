"""A worker's own account of the tokens that each step must steer."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steer.serving._bank import Bank
from steer.serving._worker import _execute_model, _State, _steered, entries

_SPAN = st.tuples(st.integers(0, 12), st.integers(0, 20))


@given(st.lists(_SPAN, max_size=3), st.integers(0, 10), st.integers(1, 10))
def test_the_count_is_that_of_the_positions(
    spans: list[tuple[int, int]], computed: int, count: int
) -> None:
    asked = [(0, "", 1.0, first, end) for first, end in spans]
    positions = range(computed, computed + count)
    expected = sum(any(first <= p < end for first, end in spans) for p in positions)
    assert _steered(asked, computed, count) == expected


def _step(**counts: int) -> Any:
    new = [
        SimpleNamespace(
            req_id=name,
            num_computed_tokens=0,
            sampling_params=SimpleNamespace(extra_args={"steer": [[0, "a", 1.0, 0, 99]]}),
        )
        for name in counts
    ]
    return SimpleNamespace(
        finished_req_ids=set(),
        scheduled_cached_reqs=SimpleNamespace(req_ids=[], num_computed_tokens=[]),
        scheduled_new_reqs=new,
        num_scheduled_tokens=counts,
    )


def test_a_step_that_steered_nothing_stops_the_engine() -> None:
    bank = Bank([0], 4, 1, 16, 4, torch.device("cpu"))
    bank.write(0, "a", {0: torch.ones(4)})
    worker = SimpleNamespace(_steer_state=_State(bank))

    def right(self: Any, step: Any) -> str:
        names = list(step.num_scheduled_tokens)
        bank.keep(names, lambda name: [(0, "a", 1.0, 0, 99)])
        bank.fill(names, list(step.num_scheduled_tokens.values()), [0] * len(names))
        return "done"

    assert _execute_model(right, worker, _step(x=3, y=2)) == "done"
    with pytest.raises(RuntimeError, match="did not steer"):
        _execute_model(lambda self, step: "done", worker, _step(x=3))


def test_a_worker_without_vectors_is_left_alone() -> None:
    assert _execute_model(lambda self, step: step, SimpleNamespace(), 7) == 7


def test_a_request_that_was_not_checked_is_never_run_unsteered() -> None:
    with pytest.raises(RuntimeError, match="unchecked"):
        entries(SimpleNamespace(extra_args={"steer": {"medical": 1.0}}))
