"""Greedy answers under many settings, in one batch where settings can be rows of it."""

from collections.abc import Sequence

from steer.algebra import CoefficientsLike, Composition
from steer.algebra._coefficients import coefficient_rows
from steer.measure._likelihood import through
from steer.measure._scores import Knob, joined
from steer.model import Model
from steer.network import PromptLike

_ROWS = 64  # answers generated at once


def answers(
    model: Model,
    composition: Composition,
    settings: CoefficientsLike,
    prompts: Sequence[PromptLike],
    max_new_tokens: int,
    *,
    strict: bool = True,
) -> list[list[str]]:
    """Return for each setting of a composition the greedy answers in the order of the prompts."""
    rows, _ = coefficient_rows(settings, composition.domains)
    asked = [*prompts]

    def read(n: int) -> list[str]:
        return model.generate(asked * n, max_new_tokens=max_new_tokens, batch_size=_ROWS)

    most = len(asked) * len(rows)
    return list(through(model, composition, rows, len(asked), most, read, strict=strict))


def answers_at(
    model: Model, knobs: Sequence[Knob], prompts: Sequence[PromptLike], max_new_tokens: int
) -> list[list[str]]:
    """Return for each setting the greedy answers in the order of the prompts."""
    found: list[list[str]] = [[] for _ in knobs]
    for composition, rows, places in joined(knobs):
        texts = answers(model, composition, rows, prompts, max_new_tokens)
        for k, said in zip(places, texts, strict=True):
            found[k] = said
    return found
