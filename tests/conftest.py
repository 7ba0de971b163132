"""What all tests share: a known number of threads each, and the same examples in every run."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache

import pytest
import torch
from hypothesis import settings
from torch.nn.functional import scaled_dot_product_attention

from tests.kernels import apply

apply()
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@cache
def _refusal() -> str:
    """What torch says where it refuses bfloat16 attention with the kernels that are set, or ""."""
    q = torch.ones(4, 4, 33, 8, dtype=torch.bfloat16)
    for mask in (None, torch.ones(4, 1, 33, 33, dtype=torch.bool).tril()):
        try:
            scaled_dot_product_attention(q, q, q, attn_mask=mask)
        except RuntimeError as error:
            return str(error).splitlines()[0]
    return ""


@contextmanager
def _unless_refused() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        told: BaseException | None = error
        while told is not None:
            if _refusal() and _refusal() in str(told):
                pytest.skip(f"torch refuses bfloat16 attention with these kernels: {_refusal()}")
            told = told.__cause__ or told.__context__
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, None, None]:
    """Skip what torch itself cannot compute under a setting of `make test-kernels`."""
    with _unless_refused():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """Likewise."""
    with _unless_refused():
        return (yield)
