"""Answers at several settings, each setting and prompt a row of a batch."""

from collections.abc import Mapping, Sequence

from tqdm.auto import tqdm

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
    progress: bool = False,
) -> list[list[str]]:
    """Return the greedy answers to every prompt, a list for each setting."""
    rows = [(setting, prompt) for setting in settings for prompt in asked]
    hidden = None if progress else True
    texts: list[str] = []
    with tqdm(total=len(rows), desc="answers", unit="answer", leave=False, disable=hidden) as bar:
        for start in range(0, len(rows), _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            with model.steered(knobs, [setting for setting, _ in part], strict=strict):
                texts += model.generate([prompt for _, prompt in part], max_new_tokens=tokens)
            bar.update(len(part))
    n = len(asked)
    return [texts[i * n : (i + 1) * n] for i in range(len(settings))]
