"""Tokens as text that can be seen, and the tokens with the largest values, layer by layer."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from steer.model import Model
from steer.show import Matrix, Row
from steer.view._charts import matrix

_SIGNS = {" ": "␣", "\n": "⏎", "\t": "⇥"}
Ranked = list[tuple[str, float]]


def tokens_of(model: Model, ids: Sequence[int] | None = None) -> tuple[str, ...]:
    """Return the text of tokens, with signs for a space, a line break and a tab.

    A token that adds no text of its own is given as the vocabulary has it.
    """
    tokenizer = model.tokenizer
    wanted = range(min(len(tokenizer), model.architecture.vocab)) if ids is None else ids
    words = tokenizer.batch_decode([[i] for i in wanted], skip_special_tokens=False)
    return tuple(
        visible(str(word or tokenizer.convert_ids_to_tokens(i)))
        for i, word in zip(wanted, words, strict=True)
    )


def visible(text: str) -> str:
    """Return a text with signs for white space, and code points for what cannot be printed."""
    return "".join(_SIGNS.get(c, c if c.isprintable() else f"\\u{ord(c):04x}") for c in text)


def ranked(
    values: Float[Tensor, " vocab"], tokens: Sequence[str], k: int, *, largest: bool = True
) -> Ranked:
    """Return the tokens with the largest or smallest values, and these."""
    found = values.topk(k, largest=largest)
    return [
        (tokens[t] if t < len(tokens) else f"<{t}>", value)
        for t, value in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    ]


def ranked_rows(
    layers: Iterable[int],
    names: tuple[str, str, str, str],
    first: Callable[[int], Ranked],
    second: Callable[[int], Ranked],
) -> list[Row]:
    """Return one row per layer and rank: the token and value of both lists, under four names."""
    return [
        dict(zip(("layer", "rank", *names), (layer, rank, *one, *other), strict=True))
        for layer in layers
        for rank, (one, other) in enumerate(zip(first(layer), second(layer), strict=True), start=1)
    ]


def ranked_matrix(
    caption: str,
    layers: Sequence[int],
    of: Callable[[int], Ranked],
    limits: tuple[float, float],
    **options: Any,
) -> Matrix:
    """Return the tokens of each layer on the colours of their values, the last layer on top."""
    rows = [of(layer) for layer in layers]
    return matrix(
        caption,
        [[value for _, value in row] for row in rows],
        map(str, layers),
        [str(rank + 1) for rank in range(len(rows[0]))],
        limits,
        texts=[[_short(token) for token, _ in row] for row in rows],
        across="rank",
        upwards=True,
        **options,
    )


def _short(token: str) -> str:
    return token if len(token) <= 9 else f"{token[:8]}…"
