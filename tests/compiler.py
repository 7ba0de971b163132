"""A compiler without memory of earlier tests, for modules that import this fixture."""

import logging
import warnings
from collections.abc import Iterator

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
