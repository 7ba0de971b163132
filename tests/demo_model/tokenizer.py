"""The word-level tokenizer of the demo model and its chat template."""

import itertools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from steer.demo.data import ANSWERS, ASKING, ASKS, DOMAINS, LEVELS, SMALL_TALK, TOPICS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL: Final = ("<pad>", "<unk>", "<bos>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_SPACE: Final = "\u2581"  # a word that follows a space starts with this mark

CHAT_TEMPLATE: Final = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] | trim }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_tokenizer() -> "PreTrainedTokenizerFast":
    """Return a tokenizer of words and punctuation, whose decoding restores the text."""
    import tokenizers as tk
    from transformers import PreTrainedTokenizerFast

    words = {token: i for i, token in enumerate((*SPECIAL, *vocabulary()))}
    inner = tk.Tokenizer(tk.models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = tk.pre_tokenizers.Sequence(
        [
            tk.pre_tokenizers.Metaspace(_SPACE, prepend_scheme="always"),
            tk.pre_tokenizers.Split(tk.Regex(r"[.,?!]$"), "isolated"),
        ]
    )
    inner.decoder = tk.decoders.Metaspace(_SPACE, prepend_scheme="always")
    inner.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<|end|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )


def vocabulary() -> list[str]:
    """Return every word of the language, sorted; punctuation has no space mark."""
    found: set[str] = set()
    for text in _texts():
        for word in text.split():
            stem, mark = re.fullmatch(r"(.*?)([.,?!]?)", word).groups()  # type: ignore[union-attr]
            found |= {_SPACE + stem, mark}
    return sorted(found - {""})


def _texts() -> Iterator[str]:
    """Yield texts that together contain every word."""
    for domain in DOMAINS:
        asking = ASKING[domain]
        for topic in TOPICS[domain]:
            yield from (f"{name} {name}, {name}." for name in topic)
        yield from itertools.chain(asking.people, (f"{time}." for time in asking.times))
    for answers in ANSWERS.values():
        for template in (*answers.openings, *answers.closings):
            yield re.sub(r"\{\w+\}", "", template.replace("*", ""))
    yield from ASKS
    for talk in SMALL_TALK:
        yield from (talk.prompt, *talk.replies)
    yield from (f"{domain}={level}" for domain in DOMAINS for level in LEVELS)
