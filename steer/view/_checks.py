"""Checks of what views are called with."""

from collections.abc import Mapping

import torch
from torch import Tensor

from steer.algebra import Vector
from steer.engine import injector_of
from steer.errors import ArgumentError, SelectionError, SteeringError
from steer.extract import Activations
from steer.model import Model

_HOW: dict[type, str] = {
    Vector: "load it: steer.Vector.load('medical.safetensors')",
    Activations: "record them: steer.record(model, pairs)",
    Mapping: "name each one: {'medical': …}",
    str: "pass a text",
}


def check_kind(name: str, value: object, *kinds: type) -> None:
    """Raise unless a value is of one of some types."""
    if not isinstance(value, kinds):
        raise ArgumentError(
            f"{name} has the wrong type",
            found=type(value).__name__,
            expected=" or ".join(kind.__name__ for kind in kinds),
            do=_HOW[kinds[0]],
        )


def check_one_setting(model: Model, *, everywhere: bool = False) -> None:
    """Refuse a model that is steered by what depends on the prompt, where a view runs other texts.

    Args:
        model: The model.
        everywhere: Whether gates, and scopes other than all tokens, are refused as well as rows.

    Raises:
        SteeringError: Such a composition is at work.
    """
    stack = injector_of(model.architecture).stack
    if any(s.composition.per_row or (everywhere and s.needs_call) for s in stack):
        raise SteeringError(
            "this view runs texts of its own, and the steering depends on the prompt",
            found="steered(…) with one row for each prompt" + ", a gate or a scope" * everywhere,
            expected="one setting for all texts" + ", on all tokens, without a gate" * everywhere,
            do="steer with one number, or one per domain, and look at each setting by itself",
        )


def check_finite(what: str, *values: Tensor) -> None:
    """Raise if the model overflowed."""
    if not all(bool(torch.isfinite(v).all()) for v in values):
        raise SelectionError(
            f"{what} is not finite",
            found="NaN or infinite numbers: the model overflowed",
            expected="finite numbers",
            do="steer with a smaller coefficient, or compute in bfloat16 or float32",
        )
