"""The vectors of one worker: persistent buffers that every step's graph reads.

The graph holds h + C[:n] V and nothing else: C has a row for each token of the step and a column
for each slot, V a row for each slot. What a request asks for is written into C before the step.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steer.serving._setting import NO_END

Entry = tuple[int, str, float, int, int]  # slot, digest, coefficient, first position, end


class Bank:
    """Directions by layer, the coefficients of the step's tokens, and the settings of requests.

    Args:
        layers: Layers that have directions.
        width: d_model.
        slots: Most vectors at a time.
        tokens: Most tokens of a step.
        requests: Most requests of a step.
        device: Where the model is.
    """

    def __init__(
        self,
        layers: Sequence[int],
        width: int,
        slots: int,
        tokens: int,
        requests: int,
        device: torch.device,
    ) -> None:
        self.directions = {
            layer: torch.zeros(slots, width, dtype=torch.float32, device=device) for layer in layers
        }
        self.coefficients: Float[Tensor, "token slot"] = torch.zeros(
            tokens, slots, dtype=torch.float32, device=device
        )
        self.steered: dict[str, int] = {}  # tokens of the last step that were steered, by request
        self._digests = [""] * slots
        self._written = 0  # rows of the last step
        self._free = list(range(requests))
        self._rows: dict[str, int] = {}
        self._c = np.zeros((requests, slots), np.float32)
        self._first = np.full((requests, slots), NO_END, np.int64)
        self._end = np.zeros((requests, slots), np.int64)

    def write(self, slot: int, digest: str, directions: Mapping[int, Tensor]) -> None:
        """Put a vector into a slot; a layer that it lacks gets zeros."""
        for layer, buffer in self.directions.items():
            row = directions.get(layer)
            buffer[slot] = 0.0 if row is None else row.to(buffer.device)
        self._digests[slot] = digest

    def keep(self, names: Collection[str], asked: Callable[[str], Sequence[Entry]]) -> None:
        """Hold the settings of exactly these requests; a new one's is asked for once."""
        for gone in self._rows.keys() - set(names):
            row = self._rows.pop(gone)
            self._c[row], self._first[row], self._end[row] = 0.0, NO_END, 0
            self._free.append(row)
        for name in set(names) - self._rows.keys():
            row = self._rows[name] = self._free.pop()
            for slot, digest, c, first, end in asked(name):
                if self._digests[slot] != digest:
                    raise RuntimeError(
                        f"steer: request {name} asks for vector {digest[:12]} in slot {slot}, "
                        f"which holds {self._digests[slot][:12] or 'nothing'}: the folder of "
                        "vectors changed while the server started; start it again"
                    )
                self._c[row, slot], self._first[row, slot], self._end[row, slot] = c, first, end

    def fill(self, names: Sequence[str], counts: Sequence[int], computed: Sequence[int]) -> None:
        """Write the coefficients of a step's tokens.

        Args:
            names: The requests, in the order of their tokens.
            counts: Tokens of each in this step.
            computed: Tokens of each before this step.
        """
        lengths = np.asarray(counts, np.int64)
        row = np.fromiter((self._rows[name] for name in names), np.int64, len(names))
        starts = np.cumsum(lengths) - lengths
        total = int(lengths.sum())
        of = np.repeat(np.arange(len(names)), lengths)
        position = np.arange(total) - starts[of] + np.asarray(computed, np.int64)[of]
        here = row[of]
        active = (position[:, None] >= self._first[here]) & (position[:, None] < self._end[here])
        self._send(np.where(active, self._c[here], np.float32(0)))
        steered = np.bincount(of, weights=active.any(axis=1), minlength=len(names))
        self.steered = {n: int(k) for n, k in zip(names, steered, strict=True)}

    def _send(self, values: np.ndarray) -> None:
        """Copy rows to the device, and zero what the last step wrote beyond them."""
        source = torch.from_numpy(values)
        if self.coefficients.is_cuda:  # the allocator keeps it until the copy is done
            source = source.pin_memory()
        total = len(values)
        self.coefficients[:total].copy_(source, non_blocking=True)
        if self._written > total:
            self.coefficients[total : self._written].zero_()
        self._written = total
