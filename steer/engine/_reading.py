"""Reading the residual stream while a model's body runs, and averaging it over tokens.

A body runs for its blocks' outputs only: no unembedding, no cache, no gradient, and it stops after
the last block that is wanted.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steer.engine._attention import PackedForward, attending, busy
from steer.engine._base import Batch
from steer.engine._layout import Place, pack
from steer.engine._patches import StopForward, hook_stream
from steer.engine._runtime import elsewhere
from steer.network import Architecture
from steer.network._architecture.probe import uncompiled

Hidden = Float[Tensor, "batch pos d_model"]
Read = Callable[[int, Hidden], object]


@dataclass(frozen=True, eq=False, slots=True)
class Means:
    """The average residual stream, in residual units, and its average norm; float64."""

    residual: Float[Tensor, "place layer d_model"]
    norm: Float[Tensor, "place layer"]  # mean ‖h‖ over the tokens of the place


class Averager:
    """Averages rows of the flattened residual stream in float64, one layer after the other.

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
        self._weights: Float[Tensor, "place pos"] = weights.to(exact)
        self._residual = torch.empty(len(rows), layers, d_model, dtype=torch.float64, device=exact)
        self._norm = torch.empty(len(rows), layers, dtype=torch.float64, device=exact)

    def read(self, index: int, stream: Hidden) -> None:
        """Add the output of the block with this index among those read."""
        flat = stream.reshape(-1, stream.shape[-1])
        rows = flat.index_select(0, self._rows.to(flat.device))
        exact = rows.to(self._weights.device).double()
        self._residual[:, index] = self._weights @ exact
        self._norm[:, index] = self._weights @ torch.linalg.vector_norm(exact, dim=-1)

    def means(self) -> Means:
        """Return the averages, on the CPU."""
        return Means(self._residual.cpu(), self._norm.cpu())


def read_packed(
    architecture: Architecture,
    sequences: Sequence[Sequence[int]],
    places: Sequence[Place],
    layers: Sequence[int],
) -> Means:
    """Return the averages at some places, from one forward in which shared beginnings run once.

    Raises:
        UnpackableError: The model's attention cannot be packed.
    """
    device, packed = device_of(architecture), pack(sequences)
    rows = [packed.rows(place) for place in places]
    averager = Averager(rows, len(layers), architecture.d_model, device)
    whole = packed.all_rows()
    with attending(architecture, PackedForward(whole.runs), layers[-1] + 1):
        run_blocks(architecture, layers, packed.inputs(whole.rows, device), averager.read)
    return averager.means()


def read_padded(
    architecture: Architecture,
    sequences: Sequence[Sequence[int]],
    places: Sequence[Place],
    layers: Sequence[int],
    *,
    max_tokens: int,
) -> Means:
    """Return the averages at some places, from batches padded on the right: any causal model.

    A batch has at most `max_tokens` tokens, padding included, and one sequence at least.
    """
    used = sorted({place.sequence for place in places})
    ids = tuple(tuple(sequences[k]) for k in used)
    residual = torch.empty(len(places), len(layers), architecture.d_model, dtype=torch.float64)
    norm = torch.empty(len(places), len(layers), dtype=torch.float64)
    for piece in Batch(ids, tuple(map(len, ids))).pieces(max_tokens):
        row_of = {used[r]: row for row, r in enumerate(piece.rows or ())}
        found = [p for p, place in enumerate(places) if place.sequence in row_of]
        tokens, mask = piece.padded("right", device_of(architecture))
        width = tokens.shape[1]
        here = [places[p] for p in found]
        rows = [[row_of[place.sequence] * width + t for t in place.tokens] for place in here]
        averager = Averager(rows, len(layers), architecture.d_model, tokens.device)
        inputs = {"input_ids": tokens}
        if any(len(row) < width for row in piece.ids):
            inputs["attention_mask"] = mask.long()
        run_blocks(architecture, layers, inputs, averager.read)
        means = averager.means()
        residual[found], norm[found] = means.residual, means.norm
    return Means(residual, norm)


def run_blocks(
    architecture: Architecture, layers: Sequence[int], inputs: Mapping[str, Any], read: Read
) -> None:
    """Run a body up to the last of some ascending layers; `read` gets index and output of each.

    Raises:
        BusyModelError: In another thread that calls the model meanwhile; this one is undisturbed.
    """
    with (
        reading(architecture, layers, read, stop=True, alone=True),
        torch.no_grad(),
        uncompiled(),
    ):
        architecture.body(**inputs, use_cache=False)


@contextmanager
def reading(
    architecture: Architecture, layers: Sequence[int], read: Read, *, stop: bool, alone: bool
) -> Iterator[None]:
    """Read the residual stream at ascending layers in this thread's forward, after any injection.

    With `stop` the forward, and the context with it, ends after the last layer. Calls of other
    threads are not read; with `alone` they are refused.
    """
    me = threading.get_ident()

    def reader(index: int) -> Callable[[Hidden], None]:
        def keep(h: Hidden) -> None:
            if elsewhere(me):
                if alone:
                    raise busy()
                return
            read(index, h)
            if stop and index == len(layers) - 1:
                raise StopForward

        return keep

    with ExitStack() as hooks, suppress(StopForward):
        for index, layer in enumerate(layers):
            hook_stream(architecture.blocks, layer, reader(index), hooks.callback)
        yield


def keep_freed_memory() -> None:
    """Let forwards on the CPU reuse the memory that they free, rather than ask for it anew.

    glibc returns freed memory to the system beyond a limit, which follows the largest block that
    was ever freed (up to 32 MiB). One such block is allocated and freed, without being written to.
    Otherwise 2 to 6 percent of the time of a packed forward goes into page faults.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def dtype_of(architecture: Architecture) -> torch.dtype:
    """Return the dtype that the body computes in: that of its token embedding."""
    dtype: torch.dtype = next(architecture.embedding.parameters()).dtype
    return dtype


def device_of(architecture: Architecture) -> torch.device:
    """Return the device on which the body expects its token ids.

    Offloaded weights are on the meta device; the hooks that load them move the ids as well.
    """
    device: torch.device = next(architecture.embedding.parameters()).device
    return torch.device("cpu") if device.type == "meta" else device
