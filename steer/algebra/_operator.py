"""Operators: registered functions `(h, V, c) -> h'` that act at residual sites.

An operator has two halves, so that work that does not depend on the token runs once per call:
`prepare(V, c)` turns directions and coefficients into tensors, `apply(h, prepared)` uses them.
Operators that meet at one site run in the order ablate, clamp, rotate, add.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from steer._registry import Registry
from steer.errors import CompositionError

Directions = Float[Tensor, "domain d_model"]
Coefficients = Float[Tensor, "batch domain"]
Hidden = Float[Tensor, "batch pos d_model"]
Prepared = tuple[Tensor, ...]

ORDER = ("ablate", "clamp", "rotate", "add")
_DEPENDENT = 1e-4
_TINY = 1e-300  # only a direction of zeros is shorter
_WITH_ARGUMENT = re.compile(r"(\w+)\(([^()]{1,40})\)")


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator.

    Args:
        name: Its name. Names in `ORDER` run in that order, all others after them.
        prepare: Maps directions `[domain d_model]` and coefficients `[batch domain]`, in the dtype
            of the directions, to the tensors that `apply` needs, each with the batch first.
        apply: Maps `h [batch pos d_model]` and those tensors to the new h. It must not write into
            h, and must return every row whose coefficients are all zero bit for bit.
        low: Smallest coefficient allowed.
        high: Largest coefficient allowed.
        at: Returns the operator at an argument: `clamp(0.5)` is `at(0.5)` of the operator that is
            registered as `clamp`, which stands for its default. None for one without argument.
    """

    name: str
    prepare: Callable[[Directions, Coefficients], Prepared]
    apply: Callable[[Hidden, Prepared], Hidden]
    low: float = float("-inf")
    high: float = float("inf")
    at: "Callable[[float], Operator] | None" = None

    def __call__(self, h: Hidden, V: Directions, c: Coefficients) -> Hidden:
        """Return h' for one site.

        Args:
            h: `[batch pos d_model]`, in residual units.
            V: `[domain d_model]`, in residual units.
            c: `[batch domain]`, dimensionless.

        Returns:
            `[batch pos d_model]`, in residual units.
        """
        return self.apply(h, cast(self.prepare(V, c), h))

    @property
    def rank(self) -> int:
        """Position in the order in which operators run at one site."""
        base = self.name.partition("(")[0]
        return ORDER.index(base) if base in ORDER else len(ORDER)

    def check(self, c: Coefficients) -> None:
        """Refuse coefficients outside the operator's range.

        Args:
            c: `[batch domain]`, dimensionless.

        Raises:
            CompositionError: A coefficient is out of range.
        """
        if c.numel() and (float(c.min()) < self.low or float(c.max()) > self.high):
            raise CompositionError(
                f"a coefficient is out of range for the operator {self.name!r}",
                found=f"from {float(c.min()):g} to {float(c.max()):g}",
                expected=f"from {self.low:g} to {self.high:g}",
                do="for 'ablate' the coefficient is a strength: 0 leaves, 1 removes",
            )


_OPERATORS: Registry[Operator] = Registry(
    "an operator", CompositionError, register="register_operator"
)


def register_operator(operator: Operator) -> Operator:
    """Register an operator under its name.

    Args:
        operator: The operator.

    Returns:
        The same operator. Registering it again, as when a notebook cell is run twice, replaces the
        old one.

    Raises:
        CompositionError: The name is taken.
    """
    _OPERATORS.add(operator.name, operator, operator.prepare, operator.apply)
    return operator


def operators() -> tuple[str, ...]:
    """Return the names of all operators, in the order in which they run at one site."""
    return tuple(sorted(_OPERATORS.names(), key=lambda name: (_OPERATORS.get(name).rank, name)))


def get_operator(name: str) -> Operator:
    """Return an operator by its name.

    Args:
        name: One of `operators()`, or one that takes an argument with a number in parentheses:
            `clamp(0.5)`.

    Returns:
        The operator; equal arguments give one and the same object.

    Raises:
        CompositionError: There is no operator of that name, or it takes no such argument.
    """
    if isinstance(name, str) and (found := _OPERATORS.find(name)):
        return found
    match = _WITH_ARGUMENT.fullmatch(str(name))
    base = _OPERATORS.find(match[1]) if match else None
    if match and base and base.at and (value := _finite(match[2])) is not None:
        return _at(base.name, base.at, value)
    known = [_OPERATORS.get(known) for known in operators()]
    raise _OPERATORS.unknown(name, tuple(o.name + "(NUMBER)" * bool(o.at) for o in known))


@lru_cache(maxsize=256)
def _at(base: str, at: Callable[[float], Operator], value: float) -> Operator:
    """Return an operator at an argument, under the canonical form of its name."""
    return replace(at(value), name=f"{base}({value!r})", at=None)


def _finite(text: str) -> float | None:
    """Return a finite number from its text, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def cast(prepared: Prepared, h: Hidden) -> Prepared:
    """Return prepared tensors on the device and in the dtype of h; Boolean tensors stay Boolean."""
    return tuple(
        t.to(h.device, h.dtype) if t.is_floating_point() else t.to(h.device) for t in prepared
    )


# -- add -----------------------------------------------------------------------------------------


def _prepare_add(V: Directions, c: Coefficients) -> Prepared:
    """Return the displacement c V, with −0.0 for rows of zeros: x + (−0.0) is x bit for bit."""
    delta = c @ V
    idle = (c == 0).all(dim=1, keepdim=True)
    return (torch.where(idle, -0.0, delta)[:, None, :],)


def _apply_add(h: Hidden, prepared: Prepared) -> Hidden:
    return h + prepared[0]


ADD = register_operator(Operator("add", _prepare_add, _apply_add))


# -- ablate --------------------------------------------------------------------------------------


def _prepare_ablate(V: Directions, c: Coefficients) -> Prepared:
    """Return the orthonormal directions of each row, their strengths, and which rows are idle.

    In each row the directions are sorted by falling strength and orthonormalised in that order
    (Gram-Schmidt, twice, in float64): the strongest removes its share of its own direction, the
    next its share of what is new in it, and so on. Equal strengths therefore remove that share of
    the span of all, whatever their order; a direction that adds nothing new (relative remainder
    under 1e-4), or whose strength is zero, removes nothing.
    """
    strength, order = torch.sort(c.double(), dim=1, descending=True, stable=True)
    scaled = V.double() / V.double().abs().amax(dim=1, keepdim=True).clamp_min(_TINY)
    unit = torch.nn.functional.normalize(scaled, dim=1)[order]
    basis: list[Tensor] = []
    for k in range(unit.shape[1]):
        rest = unit[:, k]
        for q in basis + basis:
            rest = rest - einsum(q, rest, "b d, b d -> b")[:, None] * q
        length = rest.norm(dim=1, keepdim=True)
        new = (length > _DEPENDENT) & (strength[:, k : k + 1] > 0)
        basis.append(torch.where(new, rest / length.clamp_min(_DEPENDENT), 0.0))
    Q = torch.stack(basis, dim=1)
    idle = (c == 0).all(dim=1)[:, None, None]
    return Q.to(V.dtype), (Q * strength[:, :, None]).to(V.dtype), idle


def _apply_ablate(h: Hidden, prepared: Prepared) -> Hidden:
    Q, weighted, idle = prepared
    removed = (h @ Q.mT) @ weighted
    return torch.where(idle, h, h - removed)


ABLATE = register_operator(Operator("ablate", _prepare_ablate, _apply_ablate, low=0.0, high=1.0))
