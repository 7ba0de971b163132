"""A compiler without memory of earlier tests, for modules that import this fixture."""

import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from torch import _dynamo as dynamo


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    dynamo.reset()
    logging.disable(logging.DEBUG)  # pytest would keep every record of the compiler
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield
    logging.disable(logging.NOTSET)
    dynamo.reset()


class Counting:
    """The backend `eager`, which counts the graphs it is given."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward

    def __deepcopy__(self, memo: object) -> "Counting":  # a CompileConfig copies what it holds
        return self
