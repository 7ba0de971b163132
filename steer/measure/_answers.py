"""Greedy answers under many settings, in one batch where settings can be rows of it."""

from collections.abc import Sequence

from steer.measure._likelihood import through
from steer.measure._scores import Knob, joined
from steer.model import Model
from steer.pairs import Prompt

_ROWS = 64  # answers generated at once


def answers_at(
    model: Model, knobs: Sequence[Knob], prompts: Sequence[Prompt], max_new_tokens: int
) -> list[list[str]]:
    """Return for each setting the greedy answers in the order of the prompts."""
    found: list[list[str]] = [[] for _ in knobs]
    asked = [*prompts]

    def read(n: int) -> list[str]:
        return model.generate(asked * n, max_new_tokens=max_new_tokens, batch_size=_ROWS)

    for composition, rows, places in joined(knobs):
        texts = through(model, composition, rows, len(asked), len(asked) * len(rows), read)
        for k, answers in zip(places, texts, strict=True):
            found[k] = answers
    return found
