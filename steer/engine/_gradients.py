"""Gradients of a score of given responses: in the residual stream, and in weight coefficients."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from steer.algebra import Composition, Scope
from steer.engine._base import Batch, check_evaluating
from steer.engine._patches import replace
from steer.engine._reading import device_of
from steer.engine._weights.probe import Probe
from steer.network import Architecture, block_output, replace_output

Score = Callable[[int, Float[Tensor, "pos vocab"]], Tensor]


@dataclass(frozen=True, eq=False, slots=True)
class TextGradient:
    """The gradient of the score of one text at the tokens of a scope, by layer and by domain."""

    row: int
    stream: tuple[Float[Tensor, "pos d_model"], ...]
    gradient: tuple[Float[Tensor, "pos d_model"], ...]
    coefficients: Float[Tensor, "pos domain"]


def text_gradients(
    architecture: Architecture,
    batch: Batch,
    layers: Sequence[int],
    scope: Scope,
    scores: Sequence[Score],
    weights: Composition | None = None,
) -> Iterator[list[TextGradient]]:
    """Yield, for each text, the gradients of its scores: one forward for all.

    They are taken in the residual stream at some layers, and in the coefficients, at 0, of domains
    that displace weights. Parameters need no gradient and get none. Without weights, what lies
    below the lowest layer is not differentiated. A forward has at most twice as many tokens as the
    longest text, so that it takes little more memory than a forward and backward of the longest
    pair.
    """
    check_evaluating(architecture)
    probe = Probe(weights, architecture) if weights is not None else None
    for piece in batch.pieces(2 * max(map(len, batch.ids))):
        rows = piece.rows or range(len(piece.ids))
        chosen = _tokens(piece, scope)
        with torch.enable_grad(), _Leaves(architecture, layers, probe) as kept:
            logits = _forward(architecture, piece, kept)
            wanted = [kept.streams[layer] for layer in layers]
            found: list[list[TextGradient]] = [[] for _ in rows]
            for k, score in enumerate(scores):
                # The texts of a forward do not see each other, so their scores have one backward.
                total = torch.stack([score(r, own) for r, own in zip(rows, logits, strict=True)])
                grads = torch.autograd.grad(
                    total.sum(),
                    [kept.coefficients, *wanted],
                    retain_graph=k + 1 < len(scores),
                    materialize_grads=True,
                )
                for r, row in enumerate(rows):
                    streams, (own, *others) = (
                        tuple(t.detach()[r, : len(chosen[r])][chosen[r]] for t in several)
                        for several in (wanted, grads)
                    )
                    found[r].append(TextGradient(row, streams, tuple(others), own))
        yield from found


def _forward(architecture: Architecture, piece: Batch, kept: "_Leaves") -> list[Tensor]:
    """Return the logits of each text at the positions that predict its response."""
    ids, mask = piece.padded("right", device_of(architecture))
    kept.begin(ids)
    architecture.body(input_ids=ids, attention_mask=mask.long(), use_cache=False)
    last, logits = kept.streams[architecture.n_layers - 1], []
    for r in range(len(ids)):
        tokens = piece.wanted(r, "response")
        kept.at(slice(r, r + 1), tokens)
        logits.append(architecture.unembed(last[r, tokens]))
    return logits


def _tokens(batch: Batch, scope: Scope) -> list[Bool[Tensor, " pos"]]:
    """Return which tokens of each row a scope means."""
    found = []
    for ids, prompt in zip(batch.ids, batch.prompt_lengths, strict=True):
        positions = torch.arange(len(ids))[None]
        found.append(scope.mask(positions, torch.tensor([prompt]))[0])
    return found


class _Leaves:
    """Keeps the outputs of the blocks of one forward, and displaces weights by coefficients of 0.

    The lowest stream that depends on none of these becomes a leaf.
    """

    def __init__(
        self, architecture: Architecture, layers: Sequence[int], probe: Probe | None
    ) -> None:
        self.streams: dict[int, Tensor] = {}
        self.coefficients = torch.empty(0)
        self._blocks, self._probe = architecture.blocks, probe
        self._wanted = sorted({*layers, architecture.n_layers - 1})
        self._lowest = self._wanted[0] if probe is None else -1
        self._stack = ExitStack()

    def __enter__(self) -> "_Leaves":
        for layer in self._wanted:
            hook = self._blocks[layer].register_forward_hook(self._hook(layer))
            self._stack.callback(hook.remove)
        for module, patch in self._probe.patches if self._probe else ():
            replace(module, "forward", patch(module.forward), self._stack.callback)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self, ids: Tensor) -> None:
        """Make the coefficients of a forward."""
        domains = len(self._probe.composition.domains) if self._probe else 0
        self.coefficients = torch.zeros(*ids.shape, domains, device=ids.device).requires_grad_()
        self.at(slice(None), slice(None))

    def at(self, rows: slice, tokens: slice) -> None:
        """Say which rows and tokens run next."""
        if self._probe is not None:
            self._probe.at(self.coefficients[rows, tokens])

    def _hook(self, layer: int) -> Callable[[nn.Module, Any, Any], Any]:
        def keep(module: nn.Module, args: Any, output: Any) -> Any:
            h = block_output(output)
            if layer > self._lowest and h.requires_grad:
                self.streams[layer] = h
                return None
            self.streams[layer] = leaf = h.detach().requires_grad_()
            return replace_output(output, leaf)

        return keep
