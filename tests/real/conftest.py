"""The real model, loaded once; where it cannot be had, tests are skipped, and in CI they fail."""

import os
from functools import cache

import pytest

import steer
from steer.demo import smollm2


@cache
def loaded() -> steer.Model:
    return smollm2.load()


@pytest.fixture
def lm() -> steer.Model:
    try:
        return loaded()
    except steer.CheckpointError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the real model cannot be had here: {error.found}")
