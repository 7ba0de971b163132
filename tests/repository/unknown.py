"""Prompts of a page with words that the demo model does not know, noticed while its code runs.

The demo model reads the words of its own small language alone. An example that asks it with others
shows what it makes of `<unk>`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from steer.network import _text as texts
from tests.demo_model.tokenizer import CHAT_TEMPLATE

_TURN = re.compile(r"<\|?\w+\|?>")


@contextmanager
def unknown_words(page: str) -> Iterator[list[str]]:
    """Collect the texts that stand in a page and hold a word that the demo model does not know."""
    found: dict[str, None] = {}
    render = texts.render

    def watched(tokenizer: Any, prompt: Any) -> str:
        text = render(tokenizer, prompt)
        tokenizer = texts.as_chat(tokenizer).tokenizer
        if getattr(tokenizer, "chat_template", None) == CHAT_TEMPLATE:
            said = [turn for turn in _TURN.split(text) if turn and turn in page]
            found.update((turn, None) for turn in said if _unknown(tokenizer, turn))
        return text

    unknown: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "render", watched)
        yield unknown
    unknown += found


def _unknown(tokenizer: Any, text: str) -> bool:
    ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    return tokenizer.unk_token_id in ids
