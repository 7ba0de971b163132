"""Model Runner V1: the settings of its persistent batch, written after each step is prepared."""

from collections.abc import Callable, Sequence
from typing import Any

from steer.serving._bank import Bank, Entry

Entries = Callable[[Any], Sequence[Entry]]


def follow(runner: Any, bank: Bank, entries: Entries) -> None:
    """Have a V1 runner fill the bank for each step; `entries` reads sampling parameters."""
    original = runner._prepare_inputs

    def prepare(scheduler_output: Any, counts: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(scheduler_output, counts, *args, **kwargs)
        batch = runner.input_batch
        names = batch.req_ids[: batch.num_reqs]
        bank.keep(names, lambda name: entries(runner.requests[name].sampling_params))
        bank.fill(names, counts, batch.num_computed_tokens_cpu[: len(names)])
        return result

    runner._prepare_inputs = prepare
