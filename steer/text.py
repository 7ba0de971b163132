"""From text to token ids: chat templates, special tokens exactly once, and never any padding.

A prompt goes through the tokenizer's chat template, up to where the assistant begins. A tokenizer
without a template gets the plain format, one turn after the other::

    System: You are terse.

    User: Is it safe?

    Assistant:

with the response after one space. A rendered template holds its own special tokens and gets no
more; the plain format gets those that the tokenizer puts in front of a text, and none at its end.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from steer.beginning import common
from steer.errors import PairsError, TextError
from steer.listed import listed
from steer.pairs import Message, Prompt
from steer.pairs.conversation import read_messages
from steer.pairs.pair import messages_of

PromptLike: TypeAlias = str | Sequence[Message | Mapping[str, str]]
PLAIN_FORMAT = "plain: 'System: …\\n\\nUser: …\\n\\nAssistant:', then ' ' and the response"
_NAMES = {"system": "System", "user": "User", "assistant": "Assistant"}
_CONTENTS = ("a", "7")


@dataclass(frozen=True, slots=True)
class Exchange:
    """The tokens of a prompt and the response to it.

    Args:
        ids: Token ids of the whole text.
        response_start: Index of the first response token; a token that holds characters of both
            sides of the border counts as response.
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


def template_of(tokenizer: Any) -> str:
    """Return the chat template that prompts go through, or a description of the plain format.

    Args:
        tokenizer: A Hugging Face tokenizer.

    Raises:
        TextError: It has several templates, and none is called `default`.
    """
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):
        if "default" not in template:
            raise TextError(
                "the tokenizer has several chat templates and none is the default",
                found=f"templates {sorted(template)}",
                expected="one called 'default'",
                do="set tokenizer.chat_template to the one you want",
            )
        template = template["default"]
    return PLAIN_FORMAT if template is None else str(template)


def render(tokenizer: Any, prompt: PromptLike) -> str:
    """Return a prompt as the text the model reads, up to where the assistant begins.

    Args:
        tokenizer: A Hugging Face tokenizer; it is not changed.
        prompt: A text, which is one user turn, or messages: `Message`s or mappings with `role` and
            `content`.

    Raises:
        TextError: The prompt is neither, or the chat template refuses the messages, for instance a
            system message.
    """
    messages = messages_of(as_prompt(prompt))
    if not _has_template(tokenizer):
        turns = [f"{_NAMES.get(m.role, m.role.title())}: {m.content}\n\n" for m in messages]
        return "".join(turns) + "Assistant:"
    from jinja2 import TemplateError

    conversation = [{"role": m.role, "content": m.content} for m in messages]
    try:
        text = tokenizer.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=True
        )
    except (TemplateError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise TextError(
            "the chat template refuses this prompt",
            found=f"roles {[m.role for m in messages]}: {error}",
            expected="messages that the model's template accepts",
            do="move the system message into the user's, or give the tokenizer another template",
        ) from error
    return str(text)


def encode_prompt(tokenizer: Any, prompt: PromptLike) -> tuple[int, ...]:
    """Return the token ids of a prompt, up to where the assistant begins.

    Args:
        tokenizer: A Hugging Face tokenizer; it is not changed.
        prompt: A text, which is one user turn, or messages: `Message`s or mappings with `role` and
            `content`.

    Raises:
        TextError: The prompt cannot be rendered, or has no token.
    """
    return _encode(tokenizer, render(tokenizer, prompt))[0]


def encode_exchange(tokenizer: Any, prompt: PromptLike, response: str) -> Exchange:
    """Return the token ids of a prompt with the response after it.

    The whole text is tokenised at once, as the model would have read it: around the border the
    tokens may differ from those of either part alone.

    Args:
        tokenizer: A Hugging Face tokenizer; it is not changed.
        prompt: A text, which is one user turn, or messages: `Message`s or mappings with `role` and
            `content`.
        response: What the assistant says.

    Raises:
        TextError: The prompt cannot be rendered, the response has no token of its own, or there is
            none before it.
    """
    before = render(tokenizer, prompt)
    whole = before + ("" if _has_template(tokenizer) else " ") + response
    ids, ends = _encode(tokenizer, whole)
    if ends is None:
        start = common(ids, _encode(tokenizer, before)[0])
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


def slot_samples(tokenizer: Any) -> tuple[tuple[int, ...], ...]:
    """Return the ids of user messages that end differently, to see what the template adds.

    Args:
        tokenizer: A Hugging Face tokenizer; it is not changed.

    Raises:
        TextError: The message cannot be rendered.
    """
    return tuple(encode_prompt(tokenizer, content) for content in _CONTENTS)


def encode_in_user_slot(
    tokenizer: Any, response: str, samples: Sequence[tuple[int, ...]] | None = None
) -> tuple[tuple[int, ...], int]:
    """Return the ids of a response as the user's message, and how many at the end are template.

    A token counts as template if it is the same, and in the same place from the end, whatever
    the content: one that the tokenizer merged with the end of the content does not.

    Args:
        tokenizer: A Hugging Face tokenizer; it is not changed.
        response: The text for the user's slot.
        samples: What `slot_samples` returned, if many responses are encoded.

    Returns:
        The ids up to where the assistant begins, and the number of template tokens after the
        content.

    Raises:
        TextError: The message cannot be rendered.
    """
    ids = encode_prompt(tokenizer, response)
    others = slot_samples(tokenizer) if samples is None else samples
    return ids, min(common(ids[::-1], other[::-1]) for other in others)


def as_prompt(prompt: PromptLike) -> Prompt:
    """Return a prompt in the one form that it is kept and compared in.

    Args:
        prompt: A text, or messages: `Message`s or mappings with `role` and `content`.

    Returns:
        The text, or a tuple of `Message`.

    Raises:
        TextError: It is neither.
    """
    if isinstance(prompt, str):
        return prompt
    try:
        messages = read_messages(list(prompt) if isinstance(prompt, Sequence) else prompt, "prompt")
    except PairsError as error:
        raise _no_prompt(error.what, error.found) from error
    if not messages:
        raise _no_prompt("there is no message in this prompt", repr(prompt))
    return messages


def as_prompts(prompts: Iterable[PromptLike], what: str = "prompts") -> list[Prompt]:
    """Return several prompts, each in the form of `as_prompt`.

    Args:
        prompts: A list of prompts, or another iterable.
        what: What they are, for the message.

    Raises:
        SelectionError: They are one text, or no iterable.
        TextError: One of them is neither a text nor messages.
    """
    return [as_prompt(prompt) for prompt in listed(what, prompts)]


def _no_prompt(what: str, found: object) -> TextError:
    return TextError(
        what,
        found=found,
        expected='a text, or messages like {"role": "user", "content": "…"} with text as content',
        do="convert it; the roles are system, user and assistant",
    )


def _has_template(tokenizer: Any) -> bool:
    return getattr(tokenizer, "chat_template", None) is not None


def _encode(tokenizer: Any, text: str) -> tuple[tuple[int, ...], list[int] | None]:
    """Return ids and, from a fast tokenizer, the end of each token's characters in the text."""
    fast = bool(getattr(tokenizer, "is_fast", False))
    with unchanged(tokenizer):
        bare = tokenizer(text, add_special_tokens=False, return_offsets_mapping=fast, verbose=False)
        ids = tuple(bare["input_ids"])
        front: tuple[int, ...] = ()
        if not _has_template(tokenizer):
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
    """Return the special tokens that a tokenizer puts in front of a text."""
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
    """Put back the padding and truncation that a fast tokenizer carries from call to call.

    Args:
        tokenizer: A Hugging Face tokenizer.
    """
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
