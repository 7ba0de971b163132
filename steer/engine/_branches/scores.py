"""Log-probabilities and KL at some rows of the residual stream, a piece at a time."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steer.network import Architecture

_CPU_BYTES = 30 * 2**20  # of logits at once; glibc keeps blocks below 32 MiB when they are freed
_OTHER_BYTES = 512 * 2**20
_FEWEST = 64  # positions at once; fewer make a slow product with a large unembedding
Wanted = Sequence[tuple[int, int]]


def token_logprobs(
    logits: Float[Tensor, "pos vocab"], tokens: Sequence[int]
) -> Float[Tensor, " pos"]:
    """Return the log-probability of each token, in nats, in float32 on the CPU."""
    wanted = torch.tensor(tokens, device=logits.device)[:, None]
    return torch.log_softmax(logits.float(), dim=-1).gather(1, wanted)[:, 0].cpu()


def score(
    architecture: Architecture,
    h: Float[Tensor, "batch pos d_model"],
    wanted: Wanted,
    before: Mapping[int, Float[Tensor, " vocab"]] | None = None,
) -> Float[Tensor, "batch pos read"]:
    """Return log p(token) at some rows, `log_softmax(logits(h_row))[token]`, and KL if asked."""
    limit = _CPU_BYTES if h.device.type == "cpu" else _OTHER_BYTES
    at_once = max(_FEWEST, limit // (4 * architecture.vocab))
    settings = min(h.shape[0], at_once)
    rows = sorted({row for row, _ in wanted})
    step = max(1, at_once // settings)
    found = torch.empty(h.shape[0], len(wanted), 1 if before is None else 2)
    for k in range(0, h.shape[0], settings):
        done = 0
        for i in range(0, len(rows), step):
            own = rows[i : i + step]
            part = _scored(architecture, h[k : k + settings], own, wanted, before)
            found[k : k + settings, done : done + part.shape[1]] = part
            done += part.shape[1]
    return found


def _scored(
    architecture: Architecture,
    h: Float[Tensor, "batch pos d_model"],
    rows: Sequence[int],
    wanted: Wanted,
    before: Mapping[int, Tensor] | None,
) -> Float[Tensor, "batch pos read"]:
    column = {row: k for k, row in enumerate(rows)}
    pairs = [(column[row], token) for row, token in wanted if row in column]
    at, tokens = torch.tensor(pairs, device=h.device).unbind(dim=1)
    picked = h.index_select(1, torch.tensor(rows, device=h.device))
    logits = architecture.unembed(picked.reshape(-1, picked.shape[-1])).float()
    table = torch.log_softmax(logits, dim=-1).reshape(h.shape[0], len(rows), -1)
    at = at.to(table.device)
    read = [table[:, at, tokens.to(table.device)]]
    if before is not None:
        known = torch.stack([before[row].to(table.device) for row in rows])
        p = table.exp()
        read.append(torch.where(p == 0, 0.0, p * (table - known)).sum(dim=-1)[:, at])
    return torch.stack(read, dim=-1).cpu()
