"""Pairs that a tokenizer cannot tell apart."""

import warnings
from collections.abc import Sequence

from steer.model import Model
from steer.network import encode_exchange
from steer.pairs import Pair


def warn_of_alike(model: Model, tied: Sequence[Pair]) -> None:
    """Warn of pairs whose chosen and rejected answer are the same tokens, which no model prefers.

    Args:
        model: The model.
        tied: Pairs whose answers scored exactly alike.
    """
    encoded = (
        [encode_exchange(model.chat, p.prompt, text).ids for text in (p.chosen, p.rejected)]
        for p in tied
    )
    alike = [pair for pair, (a, b) in zip(tied, encoded, strict=True) if a == b]
    if alike:
        warnings.warn(
            f"{len(alike)} pair(s) have the same tokens chosen and rejected, and count as wrong; "
            f"the first: {alike[0].chosen[:40]!r} and {alike[0].rejected[:40]!r}. Can the model's "
            "tokenizer write this language?",
            stacklevel=3,
        )
