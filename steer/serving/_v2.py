"""Model Runner V2: its ModelState is told of requests, and asked for inputs at each step."""

from typing import Any

from steer.serving._bank import Bank
from steer.serving._v1 import Entries


def follow(runner: Any, bank: Bank, entries: Entries) -> None:
    """Have a V2 runner fill the bank for each step; `entries` reads sampling parameters."""
    state = runner.model_state
    held: dict[str, Any] = {}
    add, remove, prepare = state.add_request, state.remove_request, state.prepare_inputs

    def add_request(index: int, data: Any) -> Any:
        held[data.req_id] = entries(data.sampling_params)
        return add(index, data)

    def remove_request(name: str) -> Any:
        held.pop(name, None)
        return remove(name)

    def prepare_inputs(batch: Any, states: Any) -> Any:
        names = batch.req_ids[: batch.num_reqs]
        if all(name in held for name in names):  # else a run for warming up or capture
            bank.keep(held, held.__getitem__)
            bank.fill(names, batch.num_scheduled_tokens[: len(names)], batch.num_computed_tokens_np)
        return prepare(batch, states)

    state.add_request, state.remove_request = add_request, remove_request
    state.prepare_inputs = prepare_inputs
