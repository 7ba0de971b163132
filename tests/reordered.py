"""Importing this makes torch sum matrix products in another order than this machine's kernels.

It stands for the kernels of machines that are not at hand. The inner dimension of every product is
permuted, differently for every number of rows, and attention is computed step by step. Equal shapes
give equal bits, as with any kernel; products of other shapes agree to rounding only.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType

import torch
from torch import Tensor


@cache
def _order(inner: int, rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(inner + 7919 * (rows % 5))
    return torch.randperm(inner, generator=generator)


def mm(a: Tensor, b: Tensor) -> Tensor:
    """a b, `[m k]` times `[k n]`."""
    out = a.new_empty(a.shape[0], b.shape[1])
    if a.shape[1] == b.shape[0]:  # else torch says what is wrong
        order = _order(a.shape[1], a.shape[0])
        a, b = a[:, order], b[order]
    return torch.ops.aten.mm.out(a, b, out=out)  # type: ignore[no-any-return]


def bmm(a: Tensor, b: Tensor) -> Tensor:
    """The same for each of a batch."""
    out = a.new_empty(*a.shape[:2], b.shape[2])
    if a.shape[2] == b.shape[1]:
        order = _order(a.shape[2], a.shape[1])
        a, b = a[:, :, order], b[:, order]
    return torch.ops.aten.bmm.out(a, b, out=out)  # type: ignore[no-any-return]


def addmm(c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """β c + α a b."""
    return _sum(c, beta, alpha, mm(a, b))


def baddbmm(c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """The same for each of a batch."""
    return _sum(c, beta, alpha, bmm(a, b))


def grouped_mm(
    a: Tensor,
    b: Tensor,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Products of groups of rows, or of groups of the inner dimension, that end at `offs`."""
    assert offs is not None, "experts have groups"
    assert (bias, out_dtype) == (None, None), "no expert needs more"
    ends = [0, *offs.tolist()]
    groups = [slice(*ends[k : k + 2]) for k in range(len(ends) - 1)]
    if b.ndim == 2:
        return torch.stack([mm(a[:, group], b[group]) for group in groups])
    rest = a.new_zeros(len(a) - ends[-1], b.shape[2])
    return torch.cat([*(mm(a[group], one) for group, one in zip(groups, b, strict=True)), rest])


def _sum(c: Tensor, beta: float, alpha: float, product: Tensor) -> Tensor:
    product = product if alpha == 1 else alpha * product
    return product if beta == 0 else (c if beta == 1 else beta * c) + product


KERNELS: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {"mm": mm, "bmm": bmm, "addmm": addmm, "baddbmm": baddbmm, "_grouped_mm": grouped_mm}
)
_LIBRARY = torch.library.Library("aten", "IMPL")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that a kernel is replaced is what is wanted
    for _name, _kernel in KERNELS.items():
        _LIBRARY.impl(_name, _kernel, "CPU")
torch.backends.cuda.enable_flash_sdp(False)  # of the CPU too
