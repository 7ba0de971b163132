"""Tensors that outlive a call."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def outliving() -> Iterator[None]:
    """Make ordinary tensors without gradients, also where the user is in inference mode.

    One that is made in inference mode can neither be written to nor be saved for a backward pass
    outside of it. It works as a decorator as well.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield
