"""Answers at several settings, each setting and prompt a row of a batch."""

from collections.abc import Mapping, Sequence

from steer.algebra import Composition
from steer.model import Model
from steer.network import PromptLike

Setting = Mapping[str, float]  # a coefficient by domain
_AT_ONCE = 40  # rows of one batch


def answers(
    model: Model,
    knobs: Composition,
    settings: Sequence[Setting],
    asked: Sequence[PromptLike],
    *,
    tokens: int,
    strict: bool = True,
) -> list[list[str]]:
    """Return the greedy answers to every prompt, a list for each setting."""
    rows = [setting for setting in settings for _ in asked]
    with model.steered(knobs, rows, strict=strict):
        texts = model.generate([*asked] * len(settings), max_new_tokens=tokens, batch_size=_AT_ONCE)
    n = len(asked)
    return [texts[k * n : (k + 1) * n] for k in range(len(settings))]
