"""Answers of many settings in one batch, and what is read off them."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from tqdm.auto import tqdm

from steer.algebra import Composition
from steer.model import Model
from steer.network._text import PromptLike

Setting = Mapping[str, float]
_AT_ONCE = 40  # rows of one batch


def answers(
    model: Model,
    knobs: Composition,
    settings: Sequence[Setting],
    asked: Sequence[PromptLike],
    *,
    tokens: int,
    progress: bool = False,
) -> list[list[str]]:
    """Return the greedy answers to every prompt at every setting, each a row of a batch.

    Args:
        model: The model.
        knobs: The vectors, gated or not.
        settings: Coefficients by domain.
        asked: The prompts.
        tokens: Most tokens of an answer.
        progress: Whether to show a progress bar, if the output is a terminal.

    Returns:
        For each setting the answers in the order of the prompts.
    """
    rows = [(setting, prompt) for setting in settings for prompt in asked]
    hidden = None if progress else True
    texts: list[str] = []
    with tqdm(total=len(rows), desc="answers", unit="answer", leave=False, disable=hidden) as bar:
        for start in range(0, len(rows), _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            with model.steered(knobs, [setting for setting, _ in part]):
                texts += model.generate([prompt for _, prompt in part], max_new_tokens=tokens)
            bar.update(len(part))
    n = len(asked)
    return [texts[i * n : (i + 1) * n] for i in range(len(settings))]


def share(judge: Callable[[object, str], str], label: str, texts: Sequence[str]) -> float:
    """Return the share of answers that a judge gives a label.

    Args:
        judge: The judge.
        label: The label.
        texts: The answers.
    """
    return fmean(judge(None, text) == label for text in texts)
