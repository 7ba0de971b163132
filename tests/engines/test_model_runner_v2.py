"""The adapter for Model Runner V2 against vLLM's own signatures; V2 itself needs a GPU."""

import dataclasses
import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from steer.serving import _v2
from steer.serving._bank import Bank
from steer.serving._worker import entries


def test_the_interface_has_what_the_adapter_uses() -> None:
    from vllm.v1.worker.gpu.input_batch import InputBatch
    from vllm.v1.worker.gpu.model_states.interface import ModelState

    fields = {field.name for field in dataclasses.fields(InputBatch)}
    assert fields >= {"req_ids", "num_reqs", "num_scheduled_tokens", "num_computed_tokens_np"}
    assert list(inspect.signature(ModelState.add_request).parameters)[1:] == [
        "req_index",
        "new_req_data",
    ]
    assert list(inspect.signature(ModelState.remove_request).parameters)[1:] == ["req_id"]
    assert list(inspect.signature(ModelState.prepare_inputs).parameters)[1:3] == [
        "input_batch",
        "req_states",
    ]


class _State:
    """A stand-in for a ModelState, with its three methods."""

    def add_request(self, req_index: int, new_req_data: Any) -> None: ...

    def remove_request(self, req_id: str) -> None: ...

    def prepare_inputs(self, input_batch: Any, req_states: Any) -> dict[str, Any]:
        return {"own": input_batch}


def _batch(names: list[str], counts: list[int], computed: list[int]) -> Any:
    return SimpleNamespace(
        req_ids=names,
        num_reqs=len(names),
        num_scheduled_tokens=np.array(counts),
        num_computed_tokens_np=np.array(computed),
    )


def _new(name: str, asked: list[Any]) -> Any:
    parameters = SimpleNamespace(extra_args={"steer": asked} if asked else None)
    return SimpleNamespace(req_id=name, sampling_params=parameters)


def test_rows_scopes_and_stale_rows() -> None:
    bank = Bank([1], 8, slots=2, tokens=16, requests=4, device=torch.device("cpu"))
    bank.write(0, "a", {1: torch.ones(8)})
    bank.write(1, "b", {1: torch.ones(8)})
    state = _State()
    _v2.follow(SimpleNamespace(model_state=state), bank, entries)
    state.add_request(3, _new("x", [[0, "a", 2.0, 0, 99]]))
    state.add_request(0, _new("y", [[1, "b", -1.0, 5, 99]]))
    state.add_request(1, _new("z", []))
    batch = _batch(["y", "z", "x"], [4, 1, 3], [3, 7, 0])
    assert state.prepare_inputs(batch, None) == {"own": batch}
    expected = [[0, 0], [0, 0], [0, -1], [0, -1], [0, 0], [2, 0], [2, 0], [2, 0]]
    assert bank.coefficients[:8].tolist() == expected
    assert bank.steered == {"y": 2, "z": 0, "x": 3}
    state.remove_request("y")
    state.prepare_inputs(_batch(["x"], [1], [3]), None)
    assert bank.coefficients[:9].tolist() == [[2, 0]] + [[0, 0]] * 8
    state.prepare_inputs(_batch(["_warmup_0"], [4], [0]), None)  # not one of ours
    assert bank.coefficients[:2].tolist() == [[2, 0], [0, 0]]
