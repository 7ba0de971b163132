"""The role of a parameter in its module: tried on the module, never guessed from its class.

=============  =============================================  =====================================
form           module                                         a displacement Δ of the parameter adds
=============  =============================================  =====================================
`linear`       f(x) = x Wᵀ + b                                x Δᵀ
`transposed`   f(x) = x W + b                                 x Δ
`lookup`       f(i), linear in the table W                    f(i; Δ)
`elementwise`  f(x) = g(x) ⊙ w + r(x), w of one dimension     g(x) ⊙ Δ
`added`        the same with g = 1: biases                    Δ
=============  =============================================  =====================================
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from steer.engine._weights.uses import Form, Seen
from steer.network._parameters.stand_in import run, stand_in

_ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError)
_EXACT = 1e-4  # relative, in float32
_QUANTISED = 0.1  # relative: quantised activations are homogeneous up to rounding


def form_of(module: nn.Module, leaf: str, shape: tuple[int, ...], seen: Seen) -> Form | None:
    """Return the form of a parameter in its module, or None if it has none of them."""
    held = getattr(module, leaf, None)
    plain = isinstance(held, Tensor) and held.is_floating_point() and tuple(held.shape) == shape
    if len(shape) == 2:
        if type(module).forward is nn.Linear.forward and leaf == "weight":
            return "linear"
        if plain and seen.indices is not None and _holds(_looks_up, module, leaf, held, seen):
            return "lookup"
        if seen.shape is None or seen.output is None:
            return None
        if not plain:
            same = seen.shape[-1] == shape[1] and seen.output[-1] == shape[0]
            return "linear" if same and _holds(_homogeneous, module, seen) else None
        for form in ("linear", "transposed"):
            if _holds(_multiplies, module, leaf, held, seen, form == "transposed"):
                return form
    if len(shape) == 1 and plain and seen.output is not None and seen.output[-1] == shape[0]:
        return _scale_of(module, leaf, held, seen)
    return None


def _scale_of(module: nn.Module, leaf: str, held: Any, seen: Seen) -> Form | None:
    if type(module).forward is nn.Linear.forward and leaf == "bias":
        return "added"
    if seen.shape is None or not _holds(_scales, module, leaf, held, seen):
        return None
    return "added" if _holds(_adds, module, leaf, held, seen) else "elementwise"


def gain(module: nn.Module, leaf: str, like: Tensor) -> tuple[nn.Module, nn.Module]:
    """Return modules f(·; 1) and f(·; 0), whose difference is g."""
    ones, zeros = torch.ones_like(like), torch.zeros_like(like)
    return stand_in(module, {leaf: ones}), stand_in(module, {leaf: zeros})


def _holds(check: Callable[..., bool], *args: Any) -> bool:
    """Return whether a check passes; code that rejects the trial values does not pass."""
    try:
        with torch.no_grad():
            return check(*args)
    except _ERRORS:
        return False


def _trial(module: nn.Module, leaf: str, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    out: Tensor = run(stand_in(module, {leaf: value}, torch.float32), *args, **kwargs)
    return out


def _multiplies(module: nn.Module, leaf: str, held: Tensor, seen: Seen, transposed: bool) -> bool:
    x, delta = _random(*(seen.shape or ()), like=held), _random(*held.shape, like=held)
    moved = _trial(module, leaf, delta, x) - _trial(module, leaf, torch.zeros_like(delta), x)
    return _close(moved, x @ (delta if transposed else delta.mT))


def _homogeneous(module: nn.Module, seen: Seen) -> bool:
    """f(2x) − f(0) = 2 (f(x) − f(0)), on the module itself, whose weights may be quantised."""
    own = (*module.parameters(), *module.buffers())
    x = _random(*(seen.shape or ()), like=own[0]).to(seen.dtype)
    zero, once, twice = (module(x * k).float() for k in (0.0, 1.0, 2.0))
    return _close(twice - zero, 2 * (once - zero), _QUANTISED)


def _looks_up(module: nn.Module, leaf: str, held: Tensor, seen: Seen) -> bool:
    args, kwargs = seen.indices or ((), {})
    if getattr(module, "max_norm", None) is not None:
        return False
    a, b = (_random(*held.shape, like=held, seed=seed) for seed in (1, 2))
    found = _trial(module, leaf, a + 2 * b, *args, **kwargs)
    if found.shape[-1] != held.shape[1]:
        return False
    apart = _trial(module, leaf, a, *args, **kwargs) + 2 * _trial(module, leaf, b, *args, **kwargs)
    narrow = _trial(module, leaf, a[:, :1], *args, **kwargs)  # nothing looks along the row
    return _close(found, apart) and _close(
        narrow, _trial(module, leaf, a, *args, **kwargs)[..., :1]
    )


def _scales(module: nn.Module, leaf: str, held: Tensor, seen: Seen) -> bool:
    x, delta = _random(*(seen.shape or ()), like=held), _random(*held.shape, like=held, seed=1)
    moved = _trial(module, leaf, held.float() + delta, x) - _trial(module, leaf, held.float(), x)
    return _close(moved, delta * _gain(module, leaf, held, x))


def _adds(module: nn.Module, leaf: str, held: Tensor, seen: Seen) -> bool:
    x = _random(*(seen.shape or ()), like=held, seed=3)
    found = _gain(module, leaf, held, x)
    return _close(found, torch.ones_like(found))


def _gain(module: nn.Module, leaf: str, held: Tensor, x: Tensor) -> Tensor:
    ones = torch.ones_like(held, dtype=torch.float32)
    return _trial(module, leaf, ones, x) - _trial(module, leaf, 0 * ones, x)


def _random(*shape: int, like: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(like.device)


def _close(a: Tensor, b: Tensor, bound: float = _EXACT) -> bool:
    if a.shape != b.shape or not bool(b.isfinite().all()):
        return False
    return bool((a - b).abs().max() <= bound * b.abs().max().clamp_min(1e-30))
