"""Scratch memory that is kept: a fresh page costs more than the arithmetic on it."""

import torch
from torch import Tensor


class Scratch:
    """Hands out memory by purpose; what was handed out for a purpose before is overwritten."""

    def __init__(self) -> None:
        self._bytes: dict[str, Tensor] = {}
        self._rows: dict[tuple[str, int, int], tuple[Tensor, ...]] = {}

    def rows(self, purpose: str, count: int, size: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Return flat tensors without defined content.

        Args:
            purpose: What they are for.
            count: How many.
            size: Elements of each.
            dtype: Their dtype.
        """
        key = (f"{purpose} {dtype}", count, size)
        if key not in self._rows:
            self._rows[key] = self._cut(key[0], count, size, dtype)
        return self._rows[key]

    def _cut(self, purpose: str, count: int, size: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
        row = -(-size * dtype.itemsize // 64) * 64
        if purpose not in self._bytes or self._bytes[purpose].numel() < count * row:
            self._bytes[purpose] = torch.empty(count * row, dtype=torch.uint8)
            self._rows = {key: rows for key, rows in self._rows.items() if key[0] != purpose}
        whole = self._bytes[purpose][: count * row].view(dtype)
        step = row // dtype.itemsize
        return tuple(whole[k * step : k * step + size] for k in range(count))
