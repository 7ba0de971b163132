"""Refuses coefficients that the dtype of a module whose weights are displaced cannot hold."""

from collections.abc import Sequence

import torch
from torch import nn

from steer.algebra import Composition
from steer.engine._weights.plan import Unit
from steer.errors import CompositionError

_WORKING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
Held = tuple[tuple[int, torch.dtype], ...]


def held(units: Sequence[Unit]) -> Held:
    """Return columns of the coefficients and the dtypes in which modules hold them, once each."""
    found = [
        (entry.column, dtype)
        for unit in units
        if (dtype := _working(unit.module)) is not None
        for entry in unit.entries
    ]
    return tuple(dict.fromkeys(found))


def check(composition: Composition, columns: Held) -> None:
    """Refuse coefficients that a dtype makes infinite, or zero where they are not."""
    for column, dtype in columns:
        c = composition.coefficients[:, column]
        rounded = c.to(dtype)
        lost = ~rounded.isfinite() | ((rounded == 0) & (c != 0))
        if bool(lost.any()):
            limits = torch.finfo(dtype)
            name, least = str(dtype).removeprefix("torch."), limits.tiny * limits.eps
            raise CompositionError(
                f"the model's {name} cannot hold a coefficient",
                found=f"{composition.domains[column]}={c[lost][0].item():g}",
                expected=f"0, or a magnitude from {least:.2g} to {limits.max:.6g}",
                do="scale the vector instead, vector * factor, or merge: weights='merge'",
            )


def _working(module: nn.Module) -> torch.dtype | None:
    own = (*module.parameters(), *module.buffers())
    return next((t.dtype for t in own if t.dtype in _WORKING), None)
