"""Tokens as text that can be seen: spaces and line breaks have a sign."""

from collections.abc import Sequence

from steer.model import Model

_SIGNS = {" ": "␣", "\n": "⏎", "\t": "⇥"}


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


def short(token: str) -> str:
    """Return a token cut to nine characters, for a cell of a matrix."""
    return token if len(token) <= 9 else f"{token[:8]}…"
