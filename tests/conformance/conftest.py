"""The engine under test. Tests that use `in_place` run only for engines that inject in place."""

import pytest

from tests.conformance.engines import ENGINES, IN_PLACE, EngineFactory


@pytest.fixture(params=ENGINES)
def engine_factory(request: pytest.FixtureRequest) -> EngineFactory:
    """Every engine in turn."""
    return ENGINES[request.param]


@pytest.fixture(params=IN_PLACE)
def in_place(request: pytest.FixtureRequest) -> EngineFactory:
    """Every engine that injects at the modules, so that the user's own calls are steered."""
    return ENGINES[request.param]
