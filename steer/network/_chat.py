"""Chats: a prompt as the text that a model reads, by its chat template and template arguments.

The text ends where the assistant's turn begins. If the last message is the assistant's, it is
continued. A tokenizer without a template gets the plain format, one turn after the other::

    System: You are terse.

    User: Is it safe?

    Assistant:

with the response after one space.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from types import MappingProxyType
from typing import Any, TypeAlias

from steer._check import as_list
from steer.algebra._provenance import thawed
from steer.errors import PairsError, TextError
from steer.pairs import Message, Prompt
from steer.pairs._conversation import read_messages
from steer.pairs._pair import messages_of

PromptLike: TypeAlias = str | Sequence[Message | Mapping[str, Any]]
PLAIN_FORMAT = "plain: 'System: …\\n\\nUser: …\\n\\nAssistant:', then ' ' and the response"
_SHOWN = 300  # characters of another error
_REASONING = ("reasoning_content", "reasoning", "thinking")  # names that transformers equates
_OF_THE_TEMPLATE = {"documents", "tools"}  # arguments that transformers names, and hands on


@dataclass(frozen=True, slots=True)
class Chat:
    """A tokenizer with arguments for its chat template.

    Args:
        tokenizer: A Hugging Face tokenizer; it is not changed.
        arguments: JSON values that every rendering passes to the chat template, such as
            `enable_thinking`, `tools` or `documents`.

    Raises:
        TextError: An argument belongs to the call, is no JSON value, or is unknown to the template.
    """

    tokenizer: Any
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        arguments = _plain_arguments(self.arguments)
        object.__setattr__(self, "arguments", MappingProxyType(arguments))
        if not arguments:
            return
        template = template_of(self) if self.has_template else ""
        if unread := [name for name in arguments if not _reads(template, name)]:
            raise TextError(
                "the chat template does not read these arguments",
                found=f"chat_template_kwargs {', '.join(unread)}"
                + ("" if template else "; the tokenizer has no chat template"),
                expected="names that occur in the template",
                do="correct the names, or leave them out; print(tokenizer.chat_template)",
            )
        of_the_call = {"messages", *signature(self.tokenizer.apply_chat_template).parameters}
        if own := (of_the_call - _OF_THE_TEMPLATE) & arguments.keys():
            raise _bad_arguments(f"{', '.join(sorted(own))}, which each call decides")

    @property
    def has_template(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return getattr(self.tokenizer, "chat_template", None) is not None


def as_chat(tokenizer: Any) -> Chat:
    """Return a chat as it is, and a tokenizer as a chat without arguments.

    Args:
        tokenizer: A Hugging Face tokenizer, or a `Chat`.
    """
    return tokenizer if isinstance(tokenizer, Chat) else Chat(tokenizer)


def template_of(tokenizer: Any) -> str:
    """Return the chat template in use, or a description of the plain format."""
    chat = as_chat(tokenizer)
    if not chat.has_template:
        return PLAIN_FORMAT
    try:
        return str(chat.tokenizer.get_chat_template(tools=chat.arguments.get("tools")))
    except ValueError as error:
        raise TextError(
            "the tokenizer has several chat templates and none is the default",
            found=str(error)[:_SHOWN],
            expected="one called 'default'",
            do="set tokenizer.chat_template to the one you want",
        ) from error


def render(tokenizer: Any, prompt: PromptLike) -> str:
    """Return a prompt as the text that the model reads and continues.

    The text ends where the assistant's turn begins, or with the last message if that is the
    assistant's.

    Args:
        tokenizer: A Hugging Face tokenizer, which is not changed, or a `Chat` with arguments for
            the template (`lm.chat` of a model).
        prompt: A text, as one user turn, or messages: `Message`s or mappings with `role` and
            `content`.

    Raises:
        TextError: The prompt is neither, the chat template refuses the messages (for instance a
            system message), or it does not read one of their fields.
    """
    chat, messages = as_chat(tokenizer), messages_of(as_prompt(prompt))
    continued = messages[-1].role == "assistant"
    return rendered(chat, messages, continued=continued, opened=not continued)


def rendered(chat: Chat, messages: Sequence[Message], *, continued: bool, opened: bool) -> str:
    """Return messages as text that ends inside the last one, or where the assistant begins."""
    _check_fields(chat, messages)
    if not chat.has_template:
        return _plain_text(messages, continued)
    from jinja2 import TemplateError

    conversation = [m.as_dict() for m in messages]
    try:
        text = chat.tokenizer.apply_chat_template(
            conversation,
            tokenize=False,
            add_generation_prompt=opened,
            continue_final_message=continued,
            **chat.arguments,
        )
    except (TemplateError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise TextError(
            "the chat template refuses this prompt",
            found=f"roles {[m.role for m in messages]}: {str(error)[:_SHOWN]}",
            expected="messages that the model's template accepts",
            do="move the system message into the user's, or give the tokenizer another template",
        ) from error
    return str(text)


def as_prompt(prompt: PromptLike) -> Prompt:
    """Return a prompt in its canonical form.

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
        raise _no_prompt(f"this is not a prompt: {error.what}", error.found) from error
    if not messages:
        raise _no_prompt("there is no message in this prompt", repr(prompt))
    return messages


def as_prompts(prompts: Iterable[PromptLike], what: str = "prompts") -> list[Prompt]:
    """Return prompts in the form of `as_prompt`.

    Args:
        prompts: A list of prompts, or another iterable.
        what: Their name in the error message.

    Raises:
        ArgumentError: They are one text, or not iterable.
        TextError: One of them is neither a text nor messages.
    """
    return [as_prompt(prompt) for prompt in as_list(what, prompts)]


def _no_prompt(what: str, found: object) -> TextError:
    return TextError(
        what,
        found=found,
        expected='a text, or messages like {"role": "user", "content": "…"} with text as content',
        do="convert it; the roles are system, user and assistant, and a conversation among prompts "
        "is one of them: [[message, …]]",
    )


def _plain_text(messages: Sequence[Message], continued: bool) -> str:
    turns = [f"{m.role.title()}: {m.content}\n\n" for m in messages]
    if not continued:
        return "".join(turns) + "Assistant:"
    begun = messages[-1].content
    return "".join(turns[:-1]) + (f"Assistant: {begun}" if begun else "Assistant:")


def _check_fields(chat: Chat, messages: Sequence[Message]) -> None:
    """Refuse messages with fields that the template does not read."""
    if not any(message.fields for message in messages):
        return
    template = template_of(chat) if chat.has_template else ""
    for message in messages:
        for name in message.fields:
            names = _REASONING if name in _REASONING else (name,)
            if not any(_reads(template, each) for each in names):
                raise TextError(
                    f"the chat template does not read the field {name!r} of a message",
                    found=f"a message of the {message.role} with {', '.join(message.fields)}",
                    expected="role and content, and fields whose names occur in the template",
                    do="write it into the content as the model writes it, or leave it out",
                )


def _reads(template: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", template) is not None


def _plain_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of template arguments, of JSON values only."""
    if not isinstance(arguments, Mapping):
        raise _bad_arguments(f"a {type(arguments).__name__} in place of a mapping")
    plain = thawed(arguments)
    try:
        copy = json.loads(json.dumps(plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise _bad_arguments(str(error)[:_SHOWN]) from error
    if copy != plain:
        raise _bad_arguments("keys that are not strings")
    return dict(copy)


def _bad_arguments(found: str) -> TextError:
    return TextError(
        "these are not arguments of a chat template",
        found=f"chat_template_kwargs with {found}",
        expected="names that the template reads, with JSON values that have strings as keys; a "
        "tool as its JSON schema",
        do="pass what the template reads: Model(…, chat_template_kwargs={…})",
    )
