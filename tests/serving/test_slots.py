"""A slot is free when no vector in force and no running request uses it."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from steer import Part, Vector
from steer.serving._configuration import Configuration
from steer.serving._endpoint import _Shelf
from steer.serving._library import Library


class _Engine:
    """A stand-in for vLLM's: the requests that run, and what was written into slots."""

    def __init__(self) -> None:
        own = Configuration("folder", 2, (1,), 4, 100.0, 8, "float32")
        self.vllm_config = SimpleNamespace(additional_config={"steer": own.as_json()})
        self.output_processor = SimpleNamespace(request_states={})
        self.written: list[int] = []

    async def collective_rpc(self, method: str, args: tuple[Any, ...]) -> None:
        assert method == "steer_write"
        self.written.append(args[0])


@pytest.fixture
def engine() -> _Engine:
    return _Engine()


def _part(value: float) -> Part:
    return Part(Vector.of({1: torch.full((4,), value)}))


def test_a_retired_slot_waits_for_the_requests_that_ran(engine: _Engine) -> None:
    shelf = _Shelf(engine, Library({"a": _part(1.0), "b": _part(2.0)}))
    assert shelf.free() is None
    engine.output_processor.request_states = {"x": 1, "y": 1}
    shelf.retire("b")
    assert "b" not in shelf.held.loaded
    assert shelf.free() is None
    engine.output_processor.request_states = {"y": 1, "z": 1}  # z came later
    assert shelf.free() is None
    engine.output_processor.request_states = {"z": 1}
    assert shelf.free() == 1


def test_a_name_points_to_a_vector_that_every_worker_has(engine: _Engine) -> None:
    shelf = _Shelf(engine, Library({"a": _part(1.0)}))
    before = shelf.held.loaded["a"]
    asyncio.run(shelf.load("a", _part(3.0), shelf.free() or 0))
    after = shelf.held.loaded["a"]
    assert engine.written == [after.slot] == [1]
    assert after.digest != before.digest
    assert shelf.free() == 0
