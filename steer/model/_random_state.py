"""The random state of a process: seeded for others' code, and put back."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def random_state_put_back() -> Iterator[None]:
    """Put back every random state that code of others may draw from: Python, NumPy, torch."""
    import numpy as np

    before, before_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(before_numpy)
