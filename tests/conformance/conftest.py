"""The engine under test. Tests that use `in_place` run only for engines that inject in place."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from tests.conformance.engines import ENGINES, IN_PLACE, EngineFactory

settings.register_profile("conformance", max_examples=25, deadline=None, derandomize=True)
settings.load_profile("conformance")


@pytest.fixture(params=ENGINES)
def engine_factory(request: pytest.FixtureRequest) -> EngineFactory:
    """Every engine in turn."""
    return ENGINES[request.param]


@pytest.fixture(params=IN_PLACE)
def in_place(request: pytest.FixtureRequest) -> EngineFactory:
    """Every engine that injects at the modules, so that the user's own calls are steered."""
    return ENGINES[request.param]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """One thread: tiny models are not faster on several, and other tests run beside these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
