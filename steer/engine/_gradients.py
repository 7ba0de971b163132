"""Gradients of scores of given responses, in the residual stream and weight coefficients."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Composition, Dense, LowRank, Part, Scope, Term, Vector
from steer.engine._base import Batch, check_evaluating
from steer.engine._call import Call
from steer.engine._patches import hook_stream
from steer.engine._reading import device_of
from steer.engine._steps import scope_tokens
from steer.engine._weights.displaced import Displaced, displaced_forwards
from steer.engine._weights.plan import plan
from steer.engine._weights.strength import Strength
from steer.network import Architecture

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
    with torch.inference_mode(False):  # its tensors take part in a backward pass
        kept = _Leaves(architecture, layers, weights)
    for piece in batch.pieces(2 * max(map(len, batch.ids))):
        rows = piece.rows or range(len(piece.ids))
        texts = zip(piece.ids, piece.prompt_lengths, strict=True)
        chosen = [scope_tokens(scope, len(ids), prompt) for ids, prompt in texts]
        with torch.inference_mode(False), torch.enable_grad(), kept:
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


class _Leaves:
    """Keeps the outputs of the blocks of one forward, and displaces weights by coefficients of 0.

    The lowest stream that depends on none of these becomes a leaf.
    """

    def __init__(
        self, architecture: Architecture, layers: Sequence[int], weights: Composition | None
    ) -> None:
        self.streams: dict[int, Tensor] = {}
        self.coefficients = torch.empty(0)  # one for each row, token and domain
        self._strength: Strength | None = None
        self._blocks = architecture.blocks
        self._wanted = sorted({*layers, architecture.n_layers - 1})
        self._lowest = self._wanted[0] if weights is None else -1
        parts = {} if weights is None else {n: _factored(p) for n, p in weights.parts.items()}
        self._domains, self._displaced = len(parts), list[Displaced]()
        if weights is not None:
            units = plan(replace(weights, parts=parts, gate=None), architecture, "hook").units
            self._displaced = displaced_forwards(units, lambda _: self._strength)

    def __enter__(self) -> None:
        with ExitStack() as stack:  # a failed entry leaves no hook
            for layer in self._wanted:
                hook_stream(self._blocks, layer, partial(self._keep, layer), stack.callback)
            for forward in self._displaced:
                forward.install(stack.callback)
            self._stack = stack.pop_all()

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self, ids: Tensor) -> None:
        """Create the coefficients of a forward."""
        zeros = torch.zeros(*ids.shape, self._domains, device=ids.device)
        self.coefficients = zeros.requires_grad_()
        self.at(slice(None), slice(None))

    def at(self, rows: slice, tokens: slice) -> None:
        """Set the rows and tokens that run next."""
        c = self.coefficients[rows, tokens]
        self._strength = Strength(c, Call(c.shape[0], c.shape[1], 0))
        self._strength.some = False  # zeros are not skipped

    def _keep(self, layer: int, h: Tensor) -> Tensor | None:
        if layer > self._lowest and h.requires_grad:
            self.streams[layer] = h
            return None
        self.streams[layer] = leaf = h.detach().requires_grad_()
        return leaf


def _factored(part: Part) -> Part:
    """Return a part with all matrices low-rank: dense ones become factors of full rank."""
    terms = {site: _low_rank(term) for site, term in part.vector.terms.items()}
    return replace(part, vector=Vector(terms))


def _low_rank(term: Term) -> Term:
    if not isinstance(term, Dense) or len(term.shape) != 2:
        return term
    one = torch.eye(min(term.shape), dtype=term.W.dtype, device=term.W.device)
    return LowRank(one, term.W) if term.shape[0] < term.shape[1] else LowRank(term.W, one)
