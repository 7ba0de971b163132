"""Reading averages of the residual stream while a model's body runs.

A body is run for its blocks' outputs only: no unembedding, no cache, no gradient, and it stops
after the last block that is wanted.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from steer.engine._ahead import Enough
from steer.engine._threads import elsewhere
from steer.errors import BusyModelError
from steer.network import Architecture, block_output
from steer.network._architecture.probe import uncompiled


@dataclass(frozen=True, slots=True)
class Place:
    """Tokens of one sequence whose residual stream is averaged."""

    sequence: int  # index of the sequence in its batch
    tokens: tuple[int, ...]  # indices of the tokens in that sequence, at least one


@dataclass(frozen=True, eq=False, slots=True)
class Means:
    """The average residual stream and its average norm, one row per place."""

    # `[place layer d_model]` in float64, in residual units
    residual: Float[Tensor, "pair layer d_model"]
    # `[place layer]` in float64: mean ‖h‖ over the tokens of the place
    norm: Float[Tensor, "pair layer"]


class Averager:
    """Averages rows of the residual stream in float64, one layer after the other.

    mean_p = Σ_t weight[p, t] · h[rows[t]]
    """

    def __init__(
        self, rows: Sequence[Sequence[int]], layers: int, d_model: int, device: torch.device
    ) -> None:
        exact = torch.device("cpu") if device.type == "mps" else device  # no float64 there
        used = sorted({row for place in rows for row in place})
        column = {row: i for i, row in enumerate(used)}
        self._rows: Int[Tensor, " pos"] = torch.tensor(used, device=device)
        weights = torch.zeros(len(rows), len(used), dtype=torch.float64)
        at = [(p, column[row], 1.0 / len(place)) for p, place in enumerate(rows) for row in place]
        places, columns, shares = zip(*at, strict=True)
        cells = torch.tensor(places), torch.tensor(columns)
        weights.index_put_(cells, torch.tensor(shares, dtype=torch.float64), accumulate=True)
        self._weights: Float[Tensor, "pair pos"] = weights.to(exact)
        self._residual = torch.empty(len(rows), layers, d_model, dtype=torch.float64, device=exact)
        self._norm = torch.empty(len(rows), layers, dtype=torch.float64, device=exact)

    def read(self, index: int, stream: Float[Tensor, "batch pos d_model"]) -> None:
        """Take in the output of one block."""
        flat = stream.reshape(-1, stream.shape[-1])
        rows = flat.index_select(0, self._rows.to(flat.device))
        exact = rows.to(self._weights.device).double()
        self._residual[:, index] = self._weights @ exact
        self._norm[:, index] = self._weights @ torch.linalg.vector_norm(exact, dim=-1)

    def means(self) -> Means:
        """Return what was read, on the CPU."""
        return Means(self._residual.cpu(), self._norm.cpu())


def run_blocks(
    architecture: Architecture,
    layers: Sequence[int],
    inputs: Mapping[str, Any],
    read: Callable[[int, Float[Tensor, "batch pos d_model"]], None],
) -> None:
    """Run a model's body up to the last wanted block and hand over the blocks' outputs."""
    me = threading.get_ident()

    def reader(index: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if elsewhere(me):
                raise busy_recording()
            read(index, block_output(output))
            if index == len(layers) - 1:
                raise Enough

        return after

    handles = []
    try:
        for index, layer in enumerate(layers):
            handles.append(architecture.blocks[layer].register_forward_hook(reader(index)))
        with torch.no_grad(), uncompiled():
            architecture.body(**inputs, use_cache=False)
    except Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()


def busy_recording() -> BusyModelError:
    """Return the error of a call of a model whose blocks are being read."""
    return BusyModelError(
        "this model is recording activations",
        found="a second call during a forward of the recording, or from another thread",
        expected="one call at a time",
        do="wait until record() has returned, or use one copy of the model per thread",
    )


def keep_freed_memory() -> None:
    """Let forwards on the CPU reuse the memory that they free, rather than ask for it anew.

    glibc hands freed memory back to the system beyond a limit, which follows the largest block
    that was ever freed (up to 32 MiB). One such block is allocated and freed, without being
    written to. Otherwise 2 to 6 percent of the time of a packed forward goes into page faults.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def dtype_of(architecture: Architecture) -> torch.dtype:
    """Return the dtype that the body computes in: that of its token embedding."""
    dtype: torch.dtype = next(architecture.embedding.parameters()).dtype
    return dtype


def device_of(architecture: Architecture) -> torch.device:
    """Return the device on which the body wants its token ids.

    Offloaded weights stand on the meta device; the hooks that bring them in move the ids as well.
    """
    device: torch.device = next(architecture.embedding.parameters()).device
    return torch.device("cpu") if device.type == "meta" else device
