"""From text to token ids, with special tokens exactly once and no padding.

A rendered template contains its special tokens and gets no more. The plain format gets those that
the tokenizer puts in front of a text, and none at its end.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from steer.errors import TextError
from steer.network._chat import Chat, PromptLike, as_chat, as_prompt, render
from steer.network._thinking import before_and_answer
from steer.pairs._common_prefix import common_prefix_length

_CONTENTS = ("a", "7")


@dataclass(frozen=True, slots=True)
class Exchange:
    """The tokens of a prompt and the response to it.

    Args:
        ids: Token ids of the whole text.
        response_start: Index of the first response token; a token with characters from both sides
            of the border belongs to the response.
    """

    ids: tuple[int, ...]
    response_start: int

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The tokens before the response."""
        return self.ids[: self.response_start]

    @property
    def response_ids(self) -> tuple[int, ...]:
        """The tokens of the response."""
        return self.ids[self.response_start :]


def encode_prompt(tokenizer: Any, prompt: PromptLike) -> tuple[int, ...]:
    """Return the token ids of a prompt, up to the beginning of the assistant's turn.

    Args:
        tokenizer: A Hugging Face tokenizer, which is not changed, or a `Chat`.
        prompt: A text, as one user turn, or messages: `Message`s or mappings with `role` and
            `content`.

    Raises:
        TextError: The prompt cannot be rendered, or has no token.
    """
    chat = as_chat(tokenizer)
    return _encode(chat, render(chat, prompt))[0]


def encode_exchange(tokenizer: Any, prompt: PromptLike, response: str) -> Exchange:
    """Return the token ids of a prompt followed by a response.

    The whole text is tokenised at once, as the model reads it: the tokens around the border may
    differ from those of either part alone.

    Args:
        tokenizer: A Hugging Face tokenizer, which is not changed, or a `Chat`.
        prompt: A text, as one user turn, or messages: `Message`s or mappings with `role` and
            `content`.
        response: The assistant's answer.

    Raises:
        TextError: The prompt cannot be rendered, the response has no token of its own, or no token
            comes before it.
    """
    chat = as_chat(tokenizer)
    before, answer = before_and_answer(chat, as_prompt(prompt), render(chat, prompt), response)
    ids, ends = _encode(chat, before + answer)
    if ends is None:
        start = common_prefix_length(ids, _encode(chat, before)[0])
    else:
        start = next((i for i, end in enumerate(ends) if end > len(before)), len(ids))
    if start >= len(ids):
        raise TextError(
            "the response has no token",
            found=f"{response[:60]!r}",
            expected="at least one token after the prompt's",
            do="leave the pair out, or use a tokenizer that can write this response",
        )
    if start == 0:
        raise TextError(
            "there is no token before the response",
            found=f"the prompt {before[:60]!r} through the chat template",
            expected="at least one token: the first of the response is predicted from it",
            do="give a prompt, or a chat template that writes something of its own",
        )
    return Exchange(ids, start)


def stopped(tokenizer: Any, ids: Sequence[int], stops: str | Sequence[str]) -> list[int]:
    """Return generated tokens up to and including the one that completes a stop string."""
    wanted = (stops,) if isinstance(stops, str) else tuple(stops)

    def holds(length: int) -> bool:
        text = tokenizer.decode(ids[:length], skip_special_tokens=False)
        return any(stop in text for stop in wanted)

    if not holds(len(ids)):
        return list(ids)
    return list(ids[: bisect_left(range(len(ids)), True, key=holds)])


def slot_samples(tokenizer: Any) -> tuple[tuple[int, ...], ...]:
    """Return the ids of user messages that differ, to see which tokens the template adds."""
    return tuple(encode_prompt(tokenizer, content) for content in _CONTENTS)


def encode_in_user_slot(
    tokenizer: Any, response: str, samples: Sequence[tuple[int, ...]] | None = None
) -> tuple[tuple[int, ...], int]:
    """Return the ids of a response as the user's message, and how many at the end are template.

    A token belongs to the template if it is the same, at the same place from the end, for any
    content. One that the tokenizer merged with the end of the content does not.

    Args:
        tokenizer: A Hugging Face tokenizer, which is not changed, or a `Chat`.
        response: The text for the user's slot.
        samples: The value of `slot_samples`, to compute it once for many responses.

    Returns:
        The ids up to the beginning of the assistant's turn, and the number of template tokens after
        the content.

    Raises:
        TextError: The message cannot be rendered.
    """
    ids = encode_prompt(tokenizer, response)
    others = slot_samples(tokenizer) if samples is None else samples
    return ids, min(common_prefix_length(ids[::-1], other[::-1]) for other in others)


def _encode(chat: Chat, text: str) -> tuple[tuple[int, ...], list[int] | None]:
    """Return ids and, from a fast tokenizer, where each token's characters end in the text."""
    tokenizer = chat.tokenizer
    fast = bool(getattr(tokenizer, "is_fast", False))
    with unchanged(tokenizer):
        bare = tokenizer(text, add_special_tokens=False, return_offsets_mapping=fast, verbose=False)
        ids = tuple(bare["input_ids"])
        front: tuple[int, ...] = ()
        if not chat.has_template:
            front = _front(tuple(tokenizer(text, verbose=False)["input_ids"]), ids)
    if not ids:
        raise TextError(
            "the text has no token",
            found=f"{text[:60]!r}",
            expected="at least one token",
            do="check the tokenizer's vocabulary and its chat template",
        )
    ends = [0] * len(front) + [end for _, end in bare["offset_mapping"]] if fast else None
    return front + ids, ends


def _front(dressed: tuple[int, ...], bare: tuple[int, ...]) -> tuple[int, ...]:
    """Return the special tokens in front of a text."""
    for start in range(len(dressed) - len(bare) + 1):
        if dressed[start : start + len(bare)] == bare:
            return dressed[:start]
    raise TextError(
        "the tokenizer changes a text when it adds special tokens",
        found=f"{len(dressed)} tokens with them, {len(bare)} without, not one inside the other",
        expected="special tokens at the ends only",
        do="give the tokenizer a chat template that holds the special tokens",
    )


@contextmanager
def unchanged(tokenizer: Any) -> Iterator[None]:
    """Restore the padding and truncation that a fast tokenizer keeps from call to call."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        yield
        return
    padding, truncation = backend.padding, backend.truncation
    try:
        yield
    finally:
        if padding is not None:
            backend.enable_padding(**padding)
        if truncation is not None:
            backend.enable_truncation(**truncation)
