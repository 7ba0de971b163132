"""What views ask of their arguments, and the errors that say so."""

from collections.abc import Iterable, Mapping
from numbers import Integral

import torch
from torch import Tensor

from steer._check import as_integer
from steer.algebra import Vector
from steer.engine import injector_of
from steer.errors import SelectionError, SteeringError
from steer.extract import Activations
from steer.model import Model

_HOW: dict[type, str] = {
    Model: "wrap it: steer.Model(hf_model, tokenizer)",
    Vector: "load it: steer.Vector.load('medical.safetensors')",
    Activations: "record them: steer.record(model, pairs)",
    Mapping: "name each one: {'medical': …}",
    str: "pass a text",
}


def check_kind(name: str, value: object, *kinds: type) -> None:
    """Refuse what is of another kind than a view can use.

    Args:
        name: What it is called.
        value: What was given.
        *kinds: What it may be: `Model`, `Vector`, `Activations`, `Mapping`, `str`.

    Raises:
        SelectionError: It is none of these.
    """
    if not isinstance(value, kinds):
        raise SelectionError(
            f"{name} cannot be used",
            found=type(value).__name__,
            expected=" or ".join(kind.__name__ for kind in kinds),
            do=_HOW[kinds[0]],
        )


def check_count(name: str, value: object) -> None:
    """Refuse what is no number of things to show.

    Args:
        name: What it is called.
        value: The number.

    Raises:
        SelectionError: It is no whole number of at least 1.
    """
    if (as_integer(value) or 0) < 1:
        raise SelectionError(
            f"{name} cannot be used",
            found=repr(value),
            expected="a whole number of at least 1",
            do=f"{name}=8",
        )


def check_among(name: str, value: object, known: Iterable[object]) -> None:
    """Refuse what is none of a few known values.

    Args:
        name: What they are.
        value: What was asked for.
        known: The values there are.

    Raises:
        SelectionError: It is none of them.
    """
    values = list(known)
    if not isinstance(value, str | Integral) or value not in values:
        raise SelectionError(
            f"there is no such {name}",
            found=repr(value),
            expected=" | ".join(map(str, values)),
            do="name one of these",
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
            "the model is steered by the prompt, and this view runs texts of its own",
            found="steered(…) with one row for each prompt" + ", a gate or a scope" * everywhere,
            expected="one setting for all texts" + ", on all tokens, without a gate" * everywhere,
            do="steer with one number, or one per domain, and look at each setting by itself",
        )


def check_finite(what: str, *values: Tensor) -> None:
    """Refuse numbers of a model that overflowed.

    Args:
        what: What they are.
        *values: The numbers.

    Raises:
        SelectionError: One is NaN or infinite.
    """
    if not all(bool(torch.isfinite(v).all()) for v in values):
        raise SelectionError(
            f"{what} cannot be looked at",
            found="NaN or infinite numbers: the model overflowed",
            expected="finite numbers",
            do="steer with a smaller coefficient, or compute in bfloat16 or float32",
        )
