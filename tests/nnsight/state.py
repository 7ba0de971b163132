"""What of a process an import may change behind everybody's back."""

import builtins
import logging
import random
import signal
import sys
import warnings
from typing import Any

import torch


def global_state() -> dict[str, Any]:
    """Return a snapshot that can be compared with another."""
    return {
        "nnsight imported": "nnsight" in sys.modules,
        "object": set(dir(object)),
        "builtins": {name: id(value) for name, value in vars(builtins).items() if name != "_"},
        "torch": {name: id(value) for name, value in vars(torch).items() if callable(value)},
        "torch.Tensor": {name: id(value) for name, value in vars(torch.Tensor).items()},
        "torch.nn.Module": {name: id(value) for name, value in vars(torch.nn.Module).items()},
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "grad": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "torch seed": torch.get_rng_state().tolist(),
        "python seed": random.getstate(),
        "logging": (logging.root.level, list(logging.root.handlers)),
        "warnings": list(warnings.filters),
        "trace": sys.gettrace(),
        "exceptions": sys.excepthook,
        "interrupt": signal.getsignal(signal.SIGINT),
    }
