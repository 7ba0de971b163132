"""Gradients of a score of given responses with respect to the residual stream."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from steer.architecture import Architecture
from steer.architecture.output import block_output, replace_output
from steer.engine.base import Batch, check_evaluating
from steer.engine.reading import device_of
from steer.scope import Scope

Score = Callable[[int, Float[Tensor, "pos vocab"]], Tensor]


@dataclass(frozen=True, eq=False, slots=True)
class TextGradient:
    """The gradient of the score of one text."""

    row: int
    stream: Float[Tensor, "layer pos d_model"]
    gradient: Float[Tensor, "layer pos d_model"]


def stream_gradients(
    architecture: Architecture,
    batch: Batch,
    layers: Sequence[int],
    scope: Scope,
    scores: Sequence[Score],
) -> Iterator[list[TextGradient]]:
    """Yield, for each text, the gradients of its scores at some layers: one forward for all.

    Parameters need no gradient and get none. What lies below the lowest layer is not
    differentiated. A forward has at most twice as many tokens as the longest text, so that it takes
    little more memory than a forward and backward of the longest pair.
    """
    check_evaluating(architecture)
    for piece in batch.pieces(2 * max(map(len, batch.ids))):
        rows = piece.rows or range(len(piece.ids))
        chosen = _tokens(piece, scope)
        with torch.enable_grad(), _Leaves(architecture, layers) as kept:
            ids, mask = piece.padded("right", device_of(architecture))
            architecture.body(input_ids=ids, attention_mask=mask.long(), use_cache=False)
            last = kept.streams[architecture.n_layers - 1]
            logits = [
                architecture.unembed(last[r, piece.wanted(r, "response")]) for r in range(len(ids))
            ]
            wanted = [kept.streams[layer] for layer in layers]
            found: list[list[TextGradient]] = [[] for _ in rows]
            for k, score in enumerate(scores):
                # The texts of a forward do not see each other, so their scores have one backward.
                total = torch.stack([score(r, own) for r, own in zip(rows, logits, strict=True)])
                again = k + 1 < len(scores)
                grads = torch.autograd.grad(total.sum(), wanted, retain_graph=again)
                for r, row in enumerate(rows):
                    at = chosen[r]
                    stream = torch.stack([h.detach()[r, : len(at)][at] for h in wanted])
                    gradient = torch.stack([g[r, : len(at)][at] for g in grads])
                    found[r].append(TextGradient(row, stream, gradient))
        yield from found


def _tokens(batch: Batch, scope: Scope) -> list[Bool[Tensor, " pos"]]:
    """Return which tokens of each row a scope means."""
    found = []
    for ids, prompt in zip(batch.ids, batch.prompt_lengths, strict=True):
        positions = torch.arange(len(ids))[None]
        found.append(scope.mask(positions, torch.tensor([prompt]))[0])
    return found


class _Leaves:
    """Keeps the outputs of the blocks of one forward; the lowest one wanted becomes a leaf."""

    def __init__(self, architecture: Architecture, layers: Sequence[int]) -> None:
        self.streams: dict[int, Tensor] = {}
        self._blocks = architecture.blocks
        self._wanted = {*layers, architecture.n_layers - 1}
        self._lowest = min(layers)
        self._handles: list[Any] = []

    def __enter__(self) -> "_Leaves":
        for layer in sorted(self._wanted):
            self._handles.append(self._blocks[layer].register_forward_hook(self._hook(layer)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, layer: int) -> Callable[[nn.Module, Any, Any], Any]:
        def keep(module: nn.Module, args: Any, output: Any) -> Any:
            if layer > self._lowest:
                self.streams[layer] = block_output(output)
                return None
            leaf = block_output(output).detach().requires_grad_()
            self.streams[layer] = leaf
            return replace_output(output, leaf)

        return keep
